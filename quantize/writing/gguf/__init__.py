"""A GGUF file from a 16 bit checkpoint: read `writer`, then `plan`, then `encode`.

Invariant: names, shapes, types and metadata are those of llama.cpp's own converter.
"""
