"""Mamba plugins for ordinary TensorRT: CUDA kernels, and the layers that launch them."""
