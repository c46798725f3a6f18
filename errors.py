"""The one error tree; click renders it, so commands never print a traceback for a known fault.

NemotrtError                 1  any fault whose message tells the user what to do
+-- ArtefactError            1  a checkpoint or engine directory is damaged
+-- ConfigError              2  a value is missing, unknown or out of range
+-- EnvironmentUnfitError    3  a GPU, driver, server, package or disk space is absent
+-- NoFeasiblePlanError      4  nothing fits the constraints
+-- ChildProcessFailedError  5  a process that we started failed
"""

import difflib
from collections.abc import Iterable

import click


class NemotrtError(click.ClickException):
    """A fault whose message tells the user what to do; exit code 1."""


class ArtefactError(NemotrtError):
    """A checkpoint, engine directory or result on disk is incomplete or damaged; exit code 1."""


class ConfigError(NemotrtError):
    """A configuration value is missing, unknown or out of range; exit code 2."""

    exit_code = 2


class EnvironmentUnfitError(NemotrtError):
    """A GPU, driver, server, package or disk space is absent; exit code 3."""

    exit_code = 3


class NoFeasiblePlanError(NemotrtError):
    """No configuration satisfies the constraints; exit code 4."""

    exit_code = 4


class ChildProcessFailedError(NemotrtError):
    """A process that we started failed; the message has its command, code and log; exit code 5."""

    exit_code = 5


# Of a name without a character: `--gpu "$GPU"`, where the shell has no GPU.
UNSET = " (is the variable of the shell set?)"


def nearest_hint(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean ...?" for the known name nearest to `name`, "." if none is near.

    Where none is spelled like it, the first one that contains it is near. A name without a
    character is a variable that the shell does not have.
    """
    if not name:
        return f"{UNSET}."
    by_lower = {item.lower(): item for item in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    near = near or [item for item in by_lower if len(name) > 2 and name.lower() in item]
    return f"; did you mean {by_lower[near[0]]!r}?" if near else "."


def unknown_name(what: str, name: str, known: Iterable[str]) -> ConfigError:
    """Return the error for a name that is not among `known`, with the nearest one and the list."""
    names = list(known)
    hint = nearest_hint(name, names)
    return ConfigError(f"unknown {what} {name!r}{hint} Known: {', '.join(names)}.")
