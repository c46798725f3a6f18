"""Plans side by side: over GPUs, precisions and lengths, and machines by what a token costs."""
