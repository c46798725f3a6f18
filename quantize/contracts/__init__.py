"""Whether a loader will read a quantized folder, and read it right.

Read `contract`.
"""
