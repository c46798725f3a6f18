"""Every command of the guides is one of the program's: its words, options, values, arguments."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nemotrt.cli import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "docs/guides" / name for name in ("coming-from.md", "gpu-host.md")]
GPU_HOST = ROOT / "docs/guides/gpu-host.md"
VARIABLES = {"GPU": "a10g", "NANO": "tiny", "QWEN": "tiny-dense", "PWD": "/here"}
# A command that the guides use and that comes with another change, with the options used. If it
# comes under another name, that is in neither set, so the first test fails.
AHEAD = {"check": {"--json", "--kernels"}}
HERE = {
    "plan", "quantize", "evaluate", "build", "pack", "inspect", "generate", "chat", "serve",
    "profile", "compare", "report", "doctor", "demo",
}  # fmt: skip


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def lines() -> Iterator[tuple[str, str]]:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for block in blocks(page):
            for line in block.splitlines():
                if line.startswith("nemotrt"):
                    yield page.name, line
    for page in PAGES:
        for span in re.findall(r"`(nemotrt [^`\n]+)`", page.read_text()):
            yield page.name, span


LINES = list(dict.fromkeys(lines()))


def words_of(line: str) -> list[str]:
    """Return the line's words without the program's, as a shell makes them; the end of a pipe
    or of a redirection is the shell's own."""
    filled = re.sub(r"\$(\w+)", lambda found: VARIABLES[found[1]], line)
    words = shlex.split(filled, comments=True)
    ends = [index for index, word in enumerate(words) if re.match(r"[|>&;]", word)]
    return words[1 : ends[0] if ends else None]


def check_words(group: click.Group, words: list[str]) -> None:
    """Follow a group to its command, and hold the rest to the command's options and arguments."""
    context = click.Context(group, info_name="nemotrt")
    if words[:1] == ["--version"]:
        return
    default = getattr(group, "default_name", None)
    if default is not None and words[0] not in group.list_commands(context):
        words = [default, *words]
    command = group.get_command(context, words[0])
    assert command is not None, words
    if isinstance(command, click.Group):
        check_words(command, words[1:] or [getattr(command, "default_name", "")])
        return
    inner = click.Context(command, info_name=words[0])
    values, rest, _ = command.make_parser(inner).parse_args(list(words[1:]))
    assert not rest, rest
    for parameter in command.params:
        value = values.get(parameter.name or "")
        if isinstance(parameter.type, click.Choice | click.types.IntParamType):
            for one in value if isinstance(value, list | tuple) else [value]:
                if isinstance(one, str):
                    parameter.type.convert(one, parameter, inner)
        has_value = isinstance(value, str | bool | int | list | tuple) and value not in ((), [])
        is_list = "--list" in words or "--list-recipes" in words
        assert has_value or not parameter.required or is_list, f"{parameter.name} is missing"


def test_there_is_no_command_that_the_guides_do_not_know() -> None:
    assert set(COMMANDS) - set(AHEAD) == HERE


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_line_is_a_command_of_the_program(page: str, line: str) -> None:
    words = words_of(line)
    if is_ahead(words):
        assert {word for word in words if word.startswith("-")} <= AHEAD[words[0]]
    else:
        check_words(main, words)


def is_ahead(words: list[str]) -> bool:
    """Whether a line's command is not there yet, or takes no engine yet: `check ENGINE`."""
    command = main.get_command(click.Context(main), words[0])
    takes_engine = command is not None and any(
        isinstance(p, click.Argument) for p in command.params
    )
    return words[0] in AHEAD and not takes_engine and (command is None or words[-1][0] != "-")


@pytest.mark.parametrize(
    "wrong",
    [
        "nemotrt build $NANO --gpus a10g -o x",
        "nemotrt build $NANO --backend tensort -o x",
        "nemotrt build $NANO",
        "nemotrt serve packed --port x",
        "nemotrt compare a",
        "nemotrt compare a b c",
        "nemotrt nothing",
    ],
)
def test_the_check_can_fail(wrong: str) -> None:
    with pytest.raises((AssertionError, click.UsageError)):
        check_words(main, words_of(wrong))


def test_the_pages_have_what_they_are_for() -> None:
    text = GPU_HOST.read_text()
    found = [int(number) for number in re.findall(r"^## (\d+)\.", text, re.MULTILINE)]
    assert found == list(range(1, len(found) + 1)) and len(LINES) > 60
    for heading in re.findall(r"^## \d+\. .*$", text, re.MULTILINE):
        is_build = heading.endswith("Build")
        assert is_build or re.search(r"minutes|seconds|hours|image$", heading), heading
    assert {line.split()[1] for page, line in LINES if page == GPU_HOST.name} >= {
        "doctor", "check", "plan", "build", "pack", "serve", "profile", "compare", "inspect",
    }  # fmt: skip


@pytest.mark.parametrize("block", blocks(GPU_HOST), ids=lambda block: block.splitlines()[0][:40])
def test_a_block_is_bash(block: str) -> None:
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "<" not in block.replace("<2'", ""), "a placeholder is not copy and paste"


RUN_HERE = ("plan ", "doctor", "--version", "quantize ", "build ", "inspect tiny", "build --list")


@pytest.mark.parametrize("gpu", ["a10g", "a100"])
def test_what_needs_no_gpu_runs_as_it_stands(tmp_path, monkeypatch, gpu) -> None:
    """In the page's order, the tiny models standing for the real ones; what writes is a dry run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(VARIABLES, "GPU", gpu)
    ran = 0
    for _, line in [line for line in LINES if line[0] == GPU_HOST.name]:
        words = words_of(line)
        if not " ".join(words).startswith(RUN_HERE):
            continue
        if words[0] in ("quantize", "build"):
            words += ["--dry-run"]
            if "--limits" in words:  # the tiny models are not the planned ones
                del words[words.index("--limits") : words.index("--limits") + 2]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, f"{line}\n{done.output}"
        ran += 1
    assert ran >= 10
    assert (tmp_path / "nano.yaml").is_file() and (tmp_path / "plan.html").is_file()


OURS = re.compile(r"`(--[a-z-]+)`")


def test_an_option_that_is_named_alone_is_an_option_of_ours() -> None:
    """In prose and in the right column; the left one has theirs."""
    names = {
        option for _, command in every_command(main) for p in command.params for option in p.opts
    }
    names |= {option for options in AHEAD.values() for option in options}
    for page in PAGES:
        for line in page.read_text().splitlines():
            ours = line.split("|")[2] if line.startswith("|") and page != GPU_HOST else line
            assert set(OURS.findall(ours)) <= names, line


def every_command(group: click.Group) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from every_command(command)
        else:
            yield name, command
