"""The native backend: a fused C++ step that executes a short program of operations on the CPU."""
