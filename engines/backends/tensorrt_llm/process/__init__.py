"""TensorRT-LLM's process: its Python and versions, how it is spoken to, what it says."""
