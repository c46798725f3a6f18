"""The SHA-256 of tensors' bytes, read in blocks, on all cores."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from nemotrt.engines.checkpoint.safetensors_file import TensorRef

BLOCK_BYTES = 1 << 20  # stays in the second-level cache between the read and the digest


def tensor_digest(ref: TensorRef, stop: Event | None = None) -> str:
    """Return the hex digest of the tensor's raw bytes; of nothing useful once `stop` is set."""
    sha = hashlib.sha256()
    buffer = memoryview(bytearray(min(BLOCK_BYTES, ref.num_bytes)))
    with ref.path.open("rb", buffering=0) as file:
        file.seek(ref.offset)
        left = ref.num_bytes
        while left and not (stop and stop.is_set()):
            count = file.readinto(buffer[: min(left, BLOCK_BYTES)])
            if not count:
                break
            sha.update(buffer[:count])
            left -= count
    return sha.hexdigest()


def tensor_digests(refs: Sequence[TensorRef], stop: Event | None = None) -> list[str]:
    """Return the digest of each tensor; setting `stop` ends the work soon.

    Both hashlib and reads leave the interpreter's lock, so threads do.
    """
    largest_first = sorted(range(len(refs)), key=lambda i: -refs[i].num_bytes)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        found = pool.map(lambda i: tensor_digest(refs[i], stop), largest_first)
        by_index = dict(zip(largest_first, found, strict=True))
    return [by_index[i] for i in range(len(refs))]
