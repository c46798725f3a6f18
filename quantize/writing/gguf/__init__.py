"""A GGUF file from a 16 bit checkpoint, or whatever the output is to be.

Read `writer`, then `plan`, then `encode`; `output` chooses between a folder and a file.
Invariant: names, shapes, types and metadata are those of llama.cpp's own converter.
"""
