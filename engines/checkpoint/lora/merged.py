"""A checkpoint with adapters merged into its weights, some rows at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.checkpoint.hub.origin import origin_of
from nemotrt.engines.checkpoint.lora.adapter import Adapter, LowRank, floats, open_adapter
from nemotrt.engines.checkpoint.lora.merging import Merging
from nemotrt.engines.checkpoint.quantized.decoded import DecodedRef
from nemotrt.engines.checkpoint.stored.safetensors_file import DTYPES, TensorRef
from nemotrt.errors import ArtefactError, ConfigError


@dataclass(frozen=True, slots=True)
class MergedRef(TensorRef):
    """A stored weight [out, in] with low-rank changes, each times a factor, in the stored type.

    Sums are float32 and rounded once. They are formed in the order of the changes.
    """

    stored: TensorRef
    changes: tuple[tuple[LowRank, float], ...]

    def rows(self, part: slice) -> npt.NDArray[np.generic]:
        """Return rows, computed into memory.

        Raises:
            ArtefactError: the sum is no finite number in the stored type.
        """
        start, stop, _ = part.indices(self.shape[0])
        part = slice(start, max(start, stop))
        values = self.stored.rows(part).astype(np.float32)
        for change, weight in self.changes:
            values += change.change(part) * np.float32(weight)
            if change.magnitude is not None:
                length = np.sqrt((values.astype(np.float64) ** 2).sum(axis=1))
                wanted = floats(change.magnitude, part)
                values *= (wanted / np.maximum(length, np.finfo(np.float32).tiny))[:, None]
        with np.errstate(over="ignore"):
            found = values.astype(DTYPES[self.dtype])
        if not np.isfinite(found.astype(np.float32)).all():
            raise ArtefactError(f"{self.path}: {self.name} is not finite with its adapters merged.")
        return found

    def map(self) -> npt.NDArray[np.generic]:
        """Return all of it, computed into memory."""
        return self.rows(slice(None))

    def read(self, start: int, num_bytes: int) -> bytes:
        """Return bytes of the merged weight, of the rows that they are in."""
        row_bytes = self.num_bytes // self.shape[0]
        first, last = start // row_bytes, -(-(start + num_bytes) // row_bytes)
        found = np.ascontiguousarray(self.rows(slice(first, last))).view(np.uint8).tobytes()
        return found[start - first * row_bytes :][:num_bytes]

    @property
    def parts(self) -> tuple[TensorRef, ...]:
        """The stored tensors that the values are made of."""
        return (self.stored, *(ref for change, _ in self.changes for ref in change.refs))


def open_merged(path: Path, mergings: Sequence[Merging] = ()) -> Checkpoint:
    """Return the checkpoint in folder `path` with adapters merged; without any, as it is.

    Raises:
        ArtefactError: a file is missing or damaged.
        ConfigError: an adapter is not supported, is of another model, or meets quantized weights.
    """
    checkpoint = open_checkpoint(path)
    if not mergings:
        return checkpoint
    origin = origin_of(path)
    base = origin.repository if origin else None
    adapters = [(open_adapter(m.path, checkpoint.config, base), m.weight) for m in mergings]
    return merged(checkpoint, adapters)


def merged(checkpoint: Checkpoint, adapters: Sequence[tuple[Adapter, float]]) -> Checkpoint:
    """Return the checkpoint with adapters merged, each times its weight.

    Raises:
        ConfigError: a weight is stored as codes, or a DoRA has a weight or company.
    """
    changes: dict[str, list[tuple[LowRank, float]]] = {}
    for adapter, weight in adapters:
        if adapter.has_magnitudes and (weight != 1 or len(adapters) > 1):
            raise ConfigError(
                f"{adapter.path} is a DoRA, whose rows have a length of their own: it is merged "
                "alone and whole."
            )
        for name, own in adapter.weights.items():
            changes.setdefault(name, []).append((own, weight))
    tensors = dict(checkpoint.tensors)
    for name, several in changes.items():
        ref = checkpoint[name]
        if isinstance(ref, DecodedRef) or not ref.is_float:
            raise ConfigError(
                f"{checkpoint.path} is quantized ({name} is stored as codes), and an adapter can't "
                "be merged into codes exactly. Merge it before: nemotrt quantize BASE --lora DIR, "
                "where BASE is the 16 bit checkpoint. Or keep it apart: nemotrt serve ENGINE "
                "--lora NAME=DIR, on the native backend."
            )
        tensors[name] = MergedRef(
            ref.name, ref.dtype, ref.shape, ref.path, ref.offset, ref.num_bytes, ref, tuple(several)
        )
    told = tuple(
        f"{adapter.path.resolve().name} {weight:g} {adapter.digest()}"
        for adapter, weight in adapters
    )
    return replace(checkpoint, tensors=tensors, merged=told)
