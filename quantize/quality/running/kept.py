"""What a model's blocks made of windows of tokens, kept in a folder: later runs take it from there.

A file for each window: its residual stream before the head, and the digest of that. The folder's
name is a digest of the model: every byte of its weights, and its configs.
"""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.stored.tensor_digest import tensor_digests
from nemotrt.errors import ArtefactError
from nemotrt.files.writing import make_folder, writing_file
from nemotrt.quantize.calibration.forward import Floats

Ids = npt.NDArray[np.int64]
DIGEST_BYTES = 32


class KeptStreams:
    """The streams of one checkpoint in a folder, by the tokens of their windows."""

    def __init__(self, folder: Path, checkpoint: Checkpoint) -> None:
        """Read the checkpoint's digests.

        Raises:
            EnvironmentUnfitError: the folder can't be made.
        """
        self._width = checkpoint.config.hidden_size
        names = checkpoint.used_names()
        digests = tensor_digests([checkpoint[name] for name in names], what="reading the reference")
        told = repr((checkpoint.config, checkpoint.quant, list(zip(names, digests, strict=True))))
        self.folder = folder / hashlib.sha256(told.encode()).hexdigest()[:32]
        make_folder(self.folder)

    def has(self, window: Ids) -> bool:
        """Whether the stream of a window [tokens] is there."""
        return self._path(window).is_file()

    def take(self, window: Ids) -> Floats:
        """Return a stream that is there, [tokens, width].

        Raises:
            ArtefactError: the file is damaged.
        """
        path = self._path(window)
        raw = path.read_bytes()
        data, digest = raw[:-DIGEST_BYTES], raw[-DIGEST_BYTES:]
        size = 4 * len(window) * self._width
        if len(data) != size or hashlib.sha256(data).digest() != digest:
            raise ArtefactError(f"{path} is damaged; remove it, and its window is computed again.")
        return np.frombuffer(data, np.float32).reshape(len(window), self._width)

    def keep(self, window: Ids, hidden: Floats) -> None:
        """Put a stream there, whole or not at all."""
        data = np.ascontiguousarray(hidden, np.float32).tobytes()
        with writing_file(self._path(window)) as partial:
            partial.write_bytes(data + hashlib.sha256(data).digest())

    def _path(self, window: Ids) -> Path:
        return (
            self.folder / f"{hashlib.sha256(window.astype('<i8').tobytes()).hexdigest()[:32]}.f32"
        )
