"""Our own engine for CPUs: a fused step in C++, driven by a program that the description emits.

Read `emitter.py` (description to program), `program.py` (its format), `packing.py` (its weights),
`engine.py` (an open engine), then `step/` (the C++).
"""
