"""`nemotrt check`: does this machine compute right?

Read `command.py`, then `result/fault.py` (what ends a check, and at which stage). `kernels/` checks
our CUDA kernels, which needs no TensorRT. A figure is only of what was measured on this machine, in
this run. A check that could not be made is a fault, never a pass.
"""
