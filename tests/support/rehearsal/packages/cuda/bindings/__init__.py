"""Stands for cuda.bindings."""
