"""Which load to run: presets, traces, options, and the next concurrency to try."""
