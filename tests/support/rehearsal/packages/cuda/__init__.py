"""Stands for cuda-python."""
