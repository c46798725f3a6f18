"""The graph that TensorRT compiles, with its own layers or with the Mamba plugins.

Read `export`, then `emitter`; `plugin_emitter` replaces the Mamba layers. `fitness` says which GPUs
and versions of TensorRT do.
"""
