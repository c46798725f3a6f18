"""A file that holds one JSON object."""

import json
from pathlib import Path
from typing import Any

from nemotrt.errors import ArtefactError


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises:
        ArtefactError: it can't be read, or is no JSON object.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArtefactError(f"{path} can't be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"{path} is not JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise ArtefactError(f"{path} is not a JSON object.")
    return raw


def json_object_if_there(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file, {} where there is no such file.

    Raises:
        ArtefactError: it can't be read, or is no JSON object.
    """
    return read_json_object(path) if path.is_file() else {}
