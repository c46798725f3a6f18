"""The compiled library: its compiler, its loader, and the sampler and the limits that it offers."""
