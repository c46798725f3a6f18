"""Source: 1.2 tensorrt_llm/models."""
