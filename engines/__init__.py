"""What an engine is: model description, ONNX graph, engine directory, one module a backend."""
