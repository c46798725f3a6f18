"""The claim in miniature: the same two architectures, small enough to measure on this machine."""
