"""TensorRT Edge-LLM: NVIDIA's exporter run here, its graph checked; the engine is built there."""
