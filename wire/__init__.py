"""How processes talk, and end together: requests, tensors, frames, a stream stopped by id."""
