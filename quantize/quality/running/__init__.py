"""The models run over whole texts, block by block, in constant memory.

Read `streams`, which has every token's residual stream in a file, then `block_engine`: one block on
the native kernels. `kept` has streams that outlive a run.
"""
