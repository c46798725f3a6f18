"""The Edge-LLM backend: a graph for NVIDIA's engines with Mamba and attention plugins."""
