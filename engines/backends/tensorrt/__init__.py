"""TensorRT plans: compiled here for some GPUs, or on the GPU's own host, and run there.

Read `compile/` (graph, compiler, layer report), `run/` (an open plan), `plugins/` (Mamba layers of
ours), `draws/` (tokens chosen on the GPU). No GPU has run any of it.
"""
