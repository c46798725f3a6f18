"""Targets: an engine in this process, a Triton server, an OpenAI-compatible server."""
