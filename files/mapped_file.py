"""A file that this process has mapped: another may write into it, and what is read changes."""

import os
from contextlib import suppress
from pathlib import Path

from nemotrt.errors import ArtefactError
from nemotrt.files.seal import Identity


class MappedFile:
    """Tells whether a file is as it was; one that takes its place by its name is another file."""

    def __init__(self, path: Path) -> None:
        """Open the file and note how it is now."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        self.renew()

    def renew(self) -> None:
        """Note how the file is now, after a write of this process's own."""
        self._before = Identity.of(self._descriptor)

    def check(self) -> None:
        """Raise ArtefactError if the file has been written to; it takes a microsecond."""
        if Identity.of(self._descriptor) != self._before:
            raise ArtefactError(
                f"{self._path} was written to while the engine had it open, so what it computes is "
                "not its own: open it again. A new engine takes its place by a rename, as `build` "
                "and `pack` do it, never in the same file."
            )

    def __del__(self) -> None:
        """Close the file."""
        with suppress(AttributeError, OSError):
            os.close(self._descriptor)
