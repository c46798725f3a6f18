"""executed.json: where an engine has run and was found right; beside the manifest, not part of it.

`nemotrt check ENGINE` writes it. It belongs to one manifest: of another it says nothing.
"""

import json
from pathlib import Path
from typing import Literal

from nemotrt.engines.artefact.manifest import EXECUTED_FILE, Manifest
from nemotrt.errors import ArtefactError
from nemotrt.files.model_file import Strict, json_model
from nemotrt.files.writing import write_file


class ExecutedOn(Strict):
    """One passed check; None where there is no such thing or the driver does not say."""

    schema_version: Literal[1] = 1
    engine: str  # Manifest.facts' digest
    at: str
    device: str  # "CPU", or what NVML calls the GPU
    driver: str | None
    versions: dict[str, str]
    reference: str
    largest_error: float
    bound: float
    prefill_tokens_per_s: float | None
    decode_tokens_per_s: float | None
    decode_sequences: int

    @property
    def software(self) -> str:
        """The driver and the packages that it ran with."""
        driver = {"driver": self.driver} if self.driver else {}
        return ", ".join(f"{name} {value}" for name, value in (driver | self.versions).items())

    def __str__(self) -> str:
        """Return the line for a person."""
        error = f"largest error {self.largest_error:.2g} (bound {self.bound:.2g})"
        rate = self.decode_tokens_per_s
        many = f"{self.decode_sequences} sequences"
        speed = "not timed" if rate is None else f"{rate:.4g} tokens/s with {many}"
        return f"on {self.device}, {self.at[:10]}: {error}, {speed}"


def write_executed(folder: Path, found: ExecutedOn) -> None:
    """Write the file into an engine directory, in the place of an older one."""
    text = json.dumps(found.model_dump(mode="json"), indent=2)
    write_file(folder / EXECUTED_FILE, text + "\n")


def read_executed(folder: Path, manifest: Manifest) -> ExecutedOn | None:
    """Return where this very engine was checked, or None.

    Raises:
        ArtefactError: the file is none of ours.
    """
    path = folder / EXECUTED_FILE
    if not path.is_file():
        return None
    found = json_model(ExecutedOn, path)
    return found if found.engine == manifest.facts["engine"] else None


NOT_CHECKED = "not by nemotrt check"


def checked(folder: Path, manifest: Manifest) -> str:
    """Return what is said of an engine's check where a record that can't be read stops nothing."""
    try:
        found = read_executed(folder, manifest)
    except ArtefactError as error:
        return f"{NOT_CHECKED}: {error.message}"
    return str(found) if found else NOT_CHECKED
