"""How files are read and written: text, JSON lines, YAML, whole or not at all, the user's cache."""
