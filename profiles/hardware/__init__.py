"""Facts of GPUs, each with its source, and what NVML reads of them."""
