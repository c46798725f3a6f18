"""TensorRT-LLM's PyTorch backend: a bundle of its arguments, and its `LLM` behind our engine."""
