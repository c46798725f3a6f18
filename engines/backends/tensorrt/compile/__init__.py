"""From a graph to a plan: which TensorRT compiles it, and what became of its layers."""
