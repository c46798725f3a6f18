"""NVML: what the GPU did while the load ran."""
