"""Our own engine for CPUs: a fused step in C++, driven by a program that the description emits.

Read `program/` (the description becomes a program: emitter, format, packing), `structures.py` and
`binding.py` (the C boundary), `engine.py` (an open engine), then `step/` (the C++).
"""
