"""A text, JSON or YAML file that somebody hands over: read whole, or refused by its name."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from nemotrt.errors import ArtefactError, ConfigError, NemotrtError

# libyaml's parser where the wheel has it: ten times faster.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DIGITS = 20  # of 2^64
GET_AGAIN = "copy or download it again"  # what mends a file that was cut


class _Once(LOADER):  # type: ignore[misc]  # it is Any: one of two
    """A loader that refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Return the mapping; raises ConstructorError where two of its own keys are one."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                told = f"the key {key.value!r} stands twice in one mapping"
                raise yaml.constructor.ConstructorError(None, None, told, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_text(path: Path, error: type[NemotrtError] = ConfigError) -> str:
    """Return the text of a UTF-8 file, without the byte order mark that some editors write.

    Raises:
        NemotrtError: of class `error`, where it can't be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as fault:
        raise error(f"{path} can't be read: {fault.strerror or fault}.") from fault
    except UnicodeDecodeError as fault:
        where = f"byte {fault.start} is {fault.object[fault.start]:#04x}"
        raise error(f"{path} is not UTF-8 text: {where}; save it as UTF-8.") from fault


def read_json(path: Path) -> Any:
    """Return the value in a JSON file.

    Raises:
        ArtefactError: it can't be read, is not JSON, has a key twice in one object, or is nested
            beyond all sense.
    """
    try:
        data = path.read_bytes()
    except OSError as fault:
        raise ArtefactError(f"{path} can't be read: {fault.strerror or fault}.") from fault
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        raise ArtefactError(f"{path} is not JSON: it is not UTF-8 text ({fault}).") from fault
    return parse_json(text, str(path), f" Mend it, or {GET_AGAIN}.")


def parse_json(text: str | bytes, source: str, cure: str = "") -> Any:
    """Return the value of a JSON text; `source` names it in the error, `cure` ends that.

    A key that stands twice in one object has two meanings, of which readers take either: it is
    refused, and so is an integer that no field of 64 bits holds.

    Raises:
        ArtefactError: it is not JSON, or is nested beyond all sense.
    """
    try:
        return json.loads(text, object_pairs_hook=once_each, parse_int=_integer)
    except (UnicodeDecodeError, json.JSONDecodeError) as fault:
        raise ArtefactError(f"{source} is not JSON: {fault}.{cure}") from fault
    except ValueError as fault:
        raise ArtefactError(f"{source} is malformed: {fault}.") from fault
    except RecursionError:
        raise ArtefactError(f"{source} is nested too deeply.") from None


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of these pairs; raises ValueError where two have one key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return found


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits is no size or number of a model")
    return int(text)


def read_yaml(path: Path, error: type[NemotrtError] = ConfigError) -> Any:
    """Return the value in a YAML file; None where it is empty.

    Raises:
        NemotrtError: of class `error`, where it can't be read; ConfigError: it is not YAML.
    """
    return parse_yaml(read_text(path, error), str(path))


def parse_yaml(text: str, source: str, error: type[NemotrtError] = ConfigError) -> Any:
    """Return the value of a YAML text, None where it is empty; `source` names it in the error.

    Raises:
        NemotrtError: of class `error`, where it is not YAML, or nested beyond all sense.
    """
    try:
        return yaml.load(text, Loader=_Once)  # a safe one
    except (yaml.YAMLError, ValueError) as fault:  # ValueError: a date such as 2026-13-45
        raise error(f"{source} is not YAML: {' '.join(str(fault).split())}.") from fault
    except RecursionError:
        raise error(f"{source} is nested too deeply.") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ArtefactError: it can't be read, or is no JSON object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise ArtefactError(f"{path} is not a JSON object.")
    return value


def json_object_if_there(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, {} where there is no such file.

    Raises:
        ArtefactError: it can't be read, or is no JSON object.
    """
    return read_json_object(path) if path.is_file() else {}
