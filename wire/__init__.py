"""How processes talk: a Triton stream that is stopped by id."""
