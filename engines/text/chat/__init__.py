"""From messages to a prompt: the chat template, sandboxed, and whose turn it is."""
