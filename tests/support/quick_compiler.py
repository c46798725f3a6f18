"""A compiler of the native step that takes no time: it copies what this machine has compiled."""

import shlex
from pathlib import Path

from nemotrt.engines.backends.native.library import library

COPY = """#!/bin/sh
while [ $# -gt 1 ]; do [ "$1" = -o ] && exec cp {} "$2"; shift; done
"""


def copying_compiler(folder: Path) -> Path:
    """Write it in `folder`; the library that it copies is compiled first where there is none."""
    return program(folder, COPY.format(shlex.quote(str(library.library_path()))))


def plain_compiler(folder: Path, command: list[str]) -> Path:
    """Write the real one, without optimizing."""
    return program(folder, f'#!/bin/sh\nexec {shlex.join(command)} "$@" -O0\n')


def program(folder: Path, text: str) -> Path:
    """Write a script that can be run."""
    path = folder / "compiler"
    path.write_text(text)
    path.chmod(0o755)
    return path
