"""The memory of sequences: which slot is whose, and where its state lies."""
