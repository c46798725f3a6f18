"""The SHA-256 of tensors' bytes."""

import hashlib
import itertools
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
    """Return the digest of each tensor, as `files/digests.py` does.

    Of a tensor that is decoded from several, it is the digest of their digests.
    """
    parts = [Part(part.path, part.offset, part.num_bytes) for ref in refs for part in ref.parts]
    found = iter(digests(parts, what=what, trust_seals=trust_seals, stop=stop))
    each = (list(itertools.islice(found, len(ref.parts))) for ref in refs)
    return [
        own[0] if len(own) == 1 else hashlib.sha256("".join(own).encode()).hexdigest()
        for own in each
    ]
