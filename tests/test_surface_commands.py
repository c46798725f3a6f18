"""The command line as users and scripts know it: what was accepted is accepted, at its old default.

`surface/commands.json` is the surface before the command kit. A command or an option may be added;
a spelling of the file may move to a hidden alias, and nothing may go.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from nemotrt.cli import main

COMMANDS = json.loads((Path(__file__).parent / "surface/commands.json").read_text())
SHOWN = re.compile(r"\[default: ([^\]]*?)(?:; [^\]]*)?\]")


def commands(command: click.Command, path: str = "nemotrt") -> Iterator[tuple[str, click.Command]]:
    """Yield every command by its path."""
    yield path, command
    if isinstance(command, click.Group):
        with click.Context(command) as ctx:
            for name in command.list_commands(ctx):
                child = command.get_command(ctx, name)
                assert child is not None
                yield from commands(child, f"{path} {name}")


def surface(command: click.Command) -> dict[str, Any]:
    """What a user may give to a command, by the parameter's longest spelling."""
    found = {}
    with click.Context(command) as ctx:
        for param in command.params:
            record = param.get_help_record(ctx) or ("", "")
            shown = SHOWN.search(" ".join(record[1].split()))
            default = param.to_info_dict()["default"]
            if isinstance(default, list | tuple):
                default = ", ".join(map(str, default)) or None
            if default in (None, False, "") and shown:
                default = shown[1]
            hidden = getattr(param, "old_names", ())
            found[max(param.opts, key=len)] = {
                "spellings": sorted({*param.opts, *param.secondary_opts, *hidden}),
                "default": None
                if default in (None, False, "")
                else str(default).removesuffix(".0"),
                "choices": list(getattr(param.type, "choices", ())),
                "is_flag": bool(getattr(param, "is_flag", False)),
                "is_required": param.required,
                "is_multiple": param.multiple or param.nargs != 1,
            }
    return found


@pytest.mark.parametrize("path", COMMANDS)
def test_what_was_accepted_is_accepted(path: str) -> None:
    there = dict(commands(main))
    assert path in there
    now = surface(there[path])
    for name, before in COMMANDS[path].items():
        found = [one for one in now.values() if name in one["spellings"]]
        assert len(found) == 1, name
        assert set(before["spellings"]) <= set(found[0]["spellings"]), name
        assert set(before["choices"]) <= set(found[0]["choices"]), name
        for fact in ("default", "is_flag", "is_required", "is_multiple"):
            assert found[0][fact] == before[fact], (name, fact)
