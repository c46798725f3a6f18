"""The TensorRT-LLM backend: a bundle that its PyTorch backend serves the checkpoint with."""
