"""GPU facts, load generator and report."""
