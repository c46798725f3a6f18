"""What to do with which layer: recipes by name or file."""
