"""How one tensor becomes codes and scales, and which bytes of which shard they are.

Read `plan`, then `convert`: the inner loop over rows; `kernels` are its arithmetic.
"""
