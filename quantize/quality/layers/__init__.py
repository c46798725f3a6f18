"""Which linears lose most when they are quantized, and which get more bits for it.

Read `divergence`, which measures, then `choice`, which spends a budget of bytes.
"""
