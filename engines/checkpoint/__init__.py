"""Reading a checkpoint: folders, safetensors, quantized tensors as stored, digests.

Read `checkpoint`, then `safetensors_file`. Tensors are read lazily, one at a time.
"""
