"""The command of a plan as text for a terminal: it can be copied into a shell."""

import shlex
from collections.abc import Iterator, Sequence

from nemotrt.profiles.planning.launch.launch import Launch


def launch_text(found: Launch) -> str:
    """Return the commands, the files and the notes; what is no command is a comment."""
    return "".join(f"{line}\n" for line in _lines(found))


def _lines(found: Launch) -> Iterator[str]:
    yield f"# {found.engine} {found.version} ({found.date}, from {found.source}); not run here."
    yield from (f"# {note}." for note in found.notes)
    yield from (shell_line(argv) for argv in found.before)
    for name, text in found.files.items():
        yield f"cat > {shlex.quote(name)} <<'END'"
        yield f"{text}END"
    yield shell_line(found.argv)


def shell_line(argv: Sequence[str]) -> str:
    """Return a command as a shell takes it, an option a line."""
    parts: list[list[str]] = [[]]
    for word in argv:
        if word.startswith("--"):
            parts.append([])
        parts[-1].append(word)
    return " \\\n  ".join(shlex.join(part) for part in parts)
