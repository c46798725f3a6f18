"""TensorRT-LLM 1.2, the last with an engine builder: its checkpoint and a class for the model."""
