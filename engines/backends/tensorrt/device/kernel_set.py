"""Kernels that are compiled together: their sources, names and the compiler's options."""

import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class KernelSet:
    """One compilation unit.

    Attributes:
        folder: where its sources are: `main`, and headers (*.h).
        main: the file that includes the others.
        names: the kernels.
        options: the compiler's, of nvcc and NVRTC alike; the emulator takes the definitions (-D).
        purpose: what needs the kernels, for messages.
    """

    folder: Path
    main: str
    names: tuple[str, ...]
    options: tuple[str, ...]
    purpose: str

    def sources(self) -> dict[str, str]:
        """Return every source file's text, by name."""
        return {
            path.name: path.read_text(encoding="utf-8")
            for path in sorted([*self.folder.glob("*.h"), self.folder / self.main])
        }

    @property
    def defines(self) -> tuple[str, ...]:
        """The options that define something."""
        return tuple(option for option in self.options if option.startswith("-D"))

    def digest(self, *others: str) -> str:
        """Return a digest of the sources, the options and `others`."""
        digest = hashlib.sha256(repr((self.options, others)).encode())
        for name, text in self.sources().items():
            digest.update(f"\n{name}\n{text}".encode())
        return digest.hexdigest()[:16]
