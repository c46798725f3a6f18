"""The TensorRT-LLM 1.2 backend: a checkpoint and a model class for `trtllm-build`."""
