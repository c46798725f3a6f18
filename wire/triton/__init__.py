"""Calls to a Triton model over gRPC, for whoever has its client; no model repository has a copy."""
