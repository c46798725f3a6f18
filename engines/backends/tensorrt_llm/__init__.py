"""TensorRT-LLM's PyTorch backend: a bundle of its arguments, and its `LLM` behind our engine.

The LLM runs in a process of the Python that has it (`apart`); here is our side of it.
"""
