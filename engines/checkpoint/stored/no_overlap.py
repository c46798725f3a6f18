"""A file's tensors lie apart."""

import itertools
from collections.abc import Iterable
from pathlib import Path

from nemotrt.errors import ArtefactError


def check_no_overlap(path: Path, spans: Iterable[tuple[int, int, str]]) -> None:
    """Raise ArtefactError if two tensors share bytes; each span is offset, num_bytes and name."""
    for first, second in itertools.pairwise(sorted(span for span in spans if span[1])):
        if first[0] + first[1] > second[0]:
            raise ArtefactError(f"{path}: tensors {first[2]} and {second[2]} overlap.")
