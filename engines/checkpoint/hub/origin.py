"""Where a checkpoint came from: repository and commit, as its folder's place or record tells."""

from pathlib import Path

import pydantic

from nemotrt.engines.checkpoint.hub.cache import place_of
from nemotrt.engines.checkpoint.hub.hub_id import is_commit, is_repository
from nemotrt.files.model_file import Strict, json_model

RECORD_FILE = "nemotrt_quantize.json"  # of a quantized checkpoint: what was asked
NOT_RECORDED = "not recorded"


class Origin(Strict):
    """The hub's repository and commit that weights came from, quantized since or not."""

    repository: str
    revision: str

    @pydantic.field_validator("repository")
    @classmethod
    def _is_repository(cls, text: str) -> str:
        if not is_repository(text):
            raise ValueError("no repository's name")
        return text

    @pydantic.field_validator("revision")
    @classmethod
    def _is_commit(cls, text: str) -> str:
        if not is_commit(text):
            raise ValueError("no commit")
        return text

    def __str__(self) -> str:
        """Return it as one may give it to a command."""
        return f"{self.repository}@{self.revision}"


class _Record(pydantic.BaseModel):
    """What is read of a quantized checkpoint's record; records of older versions lack it."""

    origin: Origin | None = None


def origin_of(folder: Path) -> Origin | None:
    """Return where the checkpoint in `folder` came from; None where nothing records it.

    Raises:
        ArtefactError: the record of its quantization is damaged.
    """
    if place := place_of(folder):
        return Origin(repository=place.repository, revision=place.revision)
    path = folder / RECORD_FILE
    return json_model(_Record, path, "record of a quantization").origin if path.is_file() else None
