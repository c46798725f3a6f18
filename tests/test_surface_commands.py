"""The command line as users and scripts know it: what was accepted is accepted, at its old default.

`surface/commands.json` is the surface before the command kit. A command or an option may be added;
a spelling or a choice's word of the file may move to a hidden alias, and nothing may go.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.model.numerics import NumberFormat

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
            old = getattr(param.type, "old", {})  # words that now have another spelling
            for word, member in old.items():
                if getattr(param.type, "words", {}).get(default) is member:
                    default = word
            found[max(param.opts, key=len)] = {
                "spellings": sorted({*param.opts, *param.secondary_opts, *hidden}),
                "default": None
                if default in (None, False, "")
                else str(default).removesuffix(".0"),
                "choices": [*getattr(param.type, "choices", ()), *old],
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


def test_plan_and_build_have_one_word_for_a_format() -> None:
    """Each is NumberFormat's; the longer words of the release before mean the same."""
    there = dict(commands(main))
    shown = {}
    for path in ("nemotrt plan model", "nemotrt plan sweep", "nemotrt build"):
        [param] = [one for one in there[path].params if "--ssm-state" in one.opts]
        shown[path] = set(getattr(param.type, "choices", ()))
        assert shown[path] <= set(NumberFormat)
    assert shown["nemotrt build"] == {"fp32", "fp16"} < shown["nemotrt plan model"]
    build = ["build", "tiny", "-o", "e", "--backend", "native", "--dry-run", "--json"]
    for word, old in (("fp32", "float32"), ("fp16", "float16")):
        printed = [
            CliRunner().invoke(main, [*build, "--ssm-state", one]).stdout for one in (word, old)
        ]
        assert printed[0] == printed[1] and json.loads(printed[0])["ssm_state"] == old
