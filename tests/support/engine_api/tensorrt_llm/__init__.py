"""A stand-in for TensorRT-LLM 1.2's engine API, in NumPy: it computes as the network is made.

Signatures, names and contracts are those of 1.2's Python files (each module names its own); an
argument that 1.2 does not have is a TypeError, an input that is not fed is an error, and shapes,
ranges and types are checked. Ranks are threads; their collectives meet at a barrier. Numbers are
float32, so what is proven is the model class and the checkpoint, not 16 bit arithmetic.
"""

__version__ = "1.2.1"
