"""What others have quantized: what the configs say of it, and its tensors as ours are spelled.

Read `scheme`, then `config`, then `spelling`. A config is read in one place, whoever asks: engines,
the quantizer's checks, the planner. Codes that kernels here take keep their types; all others are
read as floats, some rows at a time.
"""
