"""The SHA-256 of one tensor's bytes, read in blocks."""

import hashlib

from nemotrt.engines.safetensors_file import TensorRef

BLOCK_BYTES = 1 << 22


def tensor_digest(ref: TensorRef) -> str:
    """Return the hex digest of the tensor's raw bytes."""
    sha = hashlib.sha256()
    with ref.path.open("rb") as file:
        file.seek(ref.offset)
        left = ref.num_bytes
        while left:
            block = file.read(min(left, BLOCK_BYTES))
            if not block:
                break
            sha.update(block)
            left -= len(block)
    return sha.hexdigest()
