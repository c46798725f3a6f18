"""The SHA-256 of tensors' bytes."""

from collections.abc import Sequence
from threading import Event

from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.files.digests import Part, digests


def tensor_digests(
    refs: Sequence[TensorRef],
    stop: Event | None = None,
    *,
    what: str = "",
    trust_seals: bool = True,
) -> list[str]:
    """Return the digest of each tensor, as `files/digests.py` does."""
    parts = [Part(ref.path, ref.offset, ref.num_bytes) for ref in refs]
    return digests(parts, what=what, trust_seals=trust_seals, stop=stop)
