"""How processes talk: the request, tensors, frames, a stream that is stopped by id."""
