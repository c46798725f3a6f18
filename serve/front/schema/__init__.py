"""What the OpenAI endpoints accept, refuse and ignore, field by field."""
