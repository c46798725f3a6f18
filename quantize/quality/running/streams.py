"""The residual stream of every token of whole texts, in a file: memory is that of one sequence."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.quantize.calibration.forward import Floats, embed

Ids = npt.NDArray[np.int64]


class Stream:
    """Rows [tokens, width] of float32, one a sequence."""

    def __init__(self, path: Path, checkpoint: Checkpoint, tokens: Ids) -> None:
        """Begin with the embeddings of `tokens` [sequences, tokens] in the new file `path`."""
        self.path = path
        num_sequences, num_tokens = tokens.shape
        width = checkpoint.config.hidden_size
        self.shape: tuple[int, int, int] = (num_sequences, num_tokens, width)
        with path.open("wb") as file:
            for row in tokens:
                embed(checkpoint, row[None]).tofile(file)

    def __len__(self) -> int:
        """Sequences."""
        return self.shape[0]

    def __getitem__(self, row: int) -> Floats:
        """Return a sequence, [tokens, width]."""
        _, num_tokens, width = self.shape
        size = num_tokens * width
        offset = 4 * size * row
        return np.fromfile(self.path, np.float32, size, offset=offset).reshape(num_tokens, width)

    def __setitem__(self, row: int, values: Floats) -> None:
        """Replace a sequence."""
        with self.path.open("r+b") as file:
            file.seek(values.nbytes * row)
            file.write(np.ascontiguousarray(values).data)

    def rows(self, chosen: list[int]) -> Floats:
        """Return some sequences, [sequences, tokens, width]."""
        return np.stack([self[row] for row in chosen])

    def __iter__(self) -> Iterator[Floats]:
        """Yield each sequence."""
        return (self[row] for row in range(len(self)))
