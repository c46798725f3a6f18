"""Sampling on the GPU: the next tokens are chosen from logits that stay in device memory.

`draws.py` (DeviceDraws) is what an engine calls; `draw.py` is one sequence of it, `slot_tables.py`
what the device keeps of it, `tables.py` the structures that kernels are given, `library.py`
compiles kernels/ for the GPU at hand. Page-locked memory is never written while a copy of it is
due. A token is the one that the CPU's sampler (engines/backends/native/step/sampling.cpp) would
choose: weights have the same bits, and masses are summed as integers, so neither threads nor batch
change it.
Not executed on a GPU by its authors: tests run the kernels in an emulator.
"""
