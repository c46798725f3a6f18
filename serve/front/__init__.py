"""The OpenAI-compatible front: an ASGI application before Triton, or before the engine process."""
