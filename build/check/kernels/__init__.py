"""Our CUDA kernels on the GPU that is here: compiled, compared with the CPU, timed.

`check.py` goes through the stages. `mamba_layer.py` and `mamba.py` are the Mamba plugins' kernels,
`sampler_cases.py` and `draws.py` the sampler's: each has its cases, which `pytest -m gpu` runs too.
`rows.py` is what is found.
"""
