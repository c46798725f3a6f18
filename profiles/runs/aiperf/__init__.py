"""AIPerf, NVIDIA's load generator, as the driver of a run instead of our own."""
