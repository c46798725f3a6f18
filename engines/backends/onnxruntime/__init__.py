"""ONNX Runtime on any CPU: the fused graph, and the engine that runs it."""
