"""The SHA-256 of tensors' bytes."""

from collections.abc import Sequence
from threading import Event

from nemotrt.engines.checkpoint.safetensors_file import TensorRef
from nemotrt.files.digests import Part, digests, part_digest


def tensor_digest(ref: TensorRef, stop: Event | None = None) -> str:
    """Return the hex digest of the tensor's raw bytes; of nothing useful once `stop` is set."""
    return part_digest(_part(ref), stop)


def tensor_digests(
    refs: Sequence[TensorRef],
    stop: Event | None = None,
    *,
    what: str = "",
    trust_seals: bool = True,
) -> list[str]:
    """Return the digest of each tensor, as `files/digests.py` does."""
    return digests([_part(ref) for ref in refs], what=what, trust_seals=trust_seals, stop=stop)


def _part(ref: TensorRef) -> Part:
    return Part(ref.path, ref.offset, ref.num_bytes)
