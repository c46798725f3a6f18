"""JSON Lines: one object a line, where a line ends at a newline and nowhere else."""

import json
from collections.abc import Iterator
from typing import Any

from nemotrt.files.text_file import once_each

BOM = b"\xef\xbb\xbf"


def json_lines(data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (number, object) of each line of a file's bytes; blank lines are passed over.

    A byte order mark is no part of the first line. JSON allows U+2028 and its like inside of a
    string, so lines are cut in the bytes, not by `str.splitlines`.

    Raises:
        ValueError: a line is not UTF-8, or no JSON object; the message has its number.
    """
    for number, line in enumerate(data.removeprefix(BOM).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8"), object_pairs_hook=once_each)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise ValueError(f"line {number} is not a JSON object")
        yield number, value
