"""Quantized folders as they are read back, ours and compressed-tensors'."""
