"""tritonserver: its installation, repository, process, probes."""
