"""The GPUs' figures for Prometheus: the gauges, and a server of their own."""
