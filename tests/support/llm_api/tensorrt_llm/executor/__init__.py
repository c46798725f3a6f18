"""Where the real one has its requests."""
