"""A client's connection: what is read of it, and within which limits."""
