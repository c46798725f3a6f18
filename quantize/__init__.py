"""Checkpoint in, quantized checkpoint out."""
