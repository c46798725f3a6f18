"""Engine directory to Triton model repository and a running server."""
