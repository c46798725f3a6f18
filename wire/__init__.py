"""How processes talk, and end together: requests, tensors, frames; `triton/` needs a client.

The files here need the standard library alone: they are copied into a model repository.
"""
