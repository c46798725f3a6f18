"""The command line as a whole: help, laziness, exit codes."""

import json
import re
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nemotrt.cli import COMMANDS, LazyGroup, main
from nemotrt.errors import unknown_name

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "onnxruntime", "onnx", "transformers", "tensorrt_rtx_bindings", "numba")
SLOW = (*HEAVY, "numpy", "pydantic", "yaml", "ssl", "asyncio")  # too slow for a page of help


def test_even_without_click_the_cure_is_a_line() -> None:
    """Which renders every other error, and which the errors themselves are made of."""
    script = "import sys; sys.modules['click'] = None; import nemotrt.cli"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: the Python module click is not installed: pip install nemotrt.\n"


def test_ctrl_c_while_modules_are_imported_is_one_line() -> None:
    """The entry point is what the package's metadata name, and `python -m nemotrt` too."""
    script = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, *more):\n"
        "        if name == 'click':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from {module} import {name}\n"
        "{name}()"
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["nemotrt"].partition(":")
    command = [sys.executable, "-c", script.format(module=module, name=name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


def all_commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the path of every command and subcommand."""
    paths = [path]
    if isinstance(command, click.Group):
        with click.Context(command) as ctx:
            for name in command.list_commands(ctx):
                child = command.get_command(ctx, name)
                assert child is not None
                paths += all_commands(child, (*path, name))
    return paths


def command_at(path: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return command


@pytest.mark.parametrize("path", all_commands(main), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    command = command_at(path)
    assert command.help and command.help.strip(), "no help text"
    assert result.output.startswith("Usage: ")


WITHOUT_FILES = {"plan validate", "profile report", "report"}  # a file or two, and no settings
OF_SERVERS = {f"serve {verb}" for verb in ("install", "logs", "status", "stop")}


@pytest.mark.parametrize("path", all_commands(main), ids=" ".join)
def test_settings_may_stand_in_a_file(path: tuple[str, ...]) -> None:
    command = command_at(path)
    takes = any("--config" in param.opts for param in command.params)
    has_none = isinstance(command, click.Group) or " ".join(path) in WITHOUT_FILES | OF_SERVERS
    assert takes != has_none


def test_every_command_has_a_summary() -> None:
    assert isinstance(main, LazyGroup)
    assert all(summary.endswith(".") for _, summary in COMMANDS.values())


def imported(*arguments: str, of: tuple[str, ...] = HEAVY) -> set[str]:
    """Return which of some packages a run of the program imports."""
    code = (
        "import sys; from nemotrt.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print('\\nIMPORTED', *[n for n in {of!r} if n in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return set(result.stdout.rsplit("IMPORTED", 1)[1].split())


def test_light_commands_import_nothing_heavy(tiny_engine: object) -> None:
    for arguments in (
        ["--help"],
        ["--version"],
        ["doctor"],
        ["doctor", "--json"],
        ["inspect", str(tiny_engine)],
        ["plan", "--help"],
        ["build", "--help"],
        ["generate", "--help"],
        ["chat", "--help"],
    ):
        assert imported(*arguments) == set(), arguments
    plan = ["plan", "nemotron-nano-9b-v2", "--gpu", "a10g", "--isl", "8192", "--osl", "16384"]
    assert imported(*plan) == set()


@pytest.mark.parametrize("words", ["serve run", "serve front", "profile run", "build", "chat"])
def test_a_page_of_help_needs_only_the_dataclasses_of_options(words: str) -> None:
    assert imported(*words.split(), "--help", of=SLOW) == set()


def test_help_is_quick() -> None:
    """Under 0.3 s of processor time; the clock on the wall also counts our neighbours."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(
        [sys.executable, "-m", "nemotrt", "--help"], capture_output=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert b"Commands:" in result.stdout
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used_s < 0.3


def test_doctor_json() -> None:
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["schema_version"] == 1
    names = {package["name"]: package for package in found["packages"]}
    assert names["onnxruntime"]["version"]
    assert "pip install 'tensorrt-llm>=1.2.1'" in names["tensorrt-llm"]["install"]
    usable = {ability["name"]: ability for ability in found["abilities"]}
    assert usable["build and run on the CPU (onnxruntime)"]["is_usable"]
    needs_gpu = usable["run plans here (tensorrt)"]  # without a GPU: tests/profiles/nvml
    assert not needs_gpu["is_usable"] or (found["gpus"] and names["cuda-python"]["version"])
    assert all(ability["is_usable"] != bool(ability["hint"]) for ability in usable.values())


def test_unknown_command_and_usage_errors() -> None:
    assert CliRunner().invoke(main, ["biuld"]).exit_code == 2
    assert CliRunner().invoke(main, ["build"]).exit_code == 2


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    near = unknown_name("GPU", "a10h", ["a10g", "h100"])
    assert near.message == "unknown GPU 'a10h'; did you mean 'a10g'? Known: a10g, h100."
    assert unknown_name("GPU", "zz", ["a10g"]).message == "unknown GPU 'zz'. Known: a10g."
    part = unknown_name("model", "nano-9b", ["qwen3-8b", "nemotron-nano-9b-v2"])
    assert "; did you mean 'nemotron-nano-9b-v2'?" in part.message


@pytest.mark.parametrize("path", all_commands(main), ids=" ".join)
def test_no_range_takes_what_is_no_number(path: tuple[str, ...]) -> None:
    """click's own ranges take NaN, which is in none."""
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), name) or command
    for param in command.params:
        if isinstance(param.type, click.FloatRange):
            for number in ("nan", "inf"):
                with pytest.raises(click.BadParameter):
                    param.type.convert(number, param, None)


@pytest.mark.parametrize(
    ("module", "cure"),
    [("rich", "pip install nemotrt."), ("starlette", "pip install 'nemotrt[serve]'.")],
)
def test_a_lost_package_is_one_line(module: str, cure: str, monkeypatch) -> None:
    """By name, with the extra that brings it; our own modules keep their traceback."""

    def lost(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("nemotrt.doctor.diagnose", lambda: lost(f"{module}.part"))
    ran = CliRunner().invoke(main, ["doctor"])
    assert ran.exit_code == 3 and ran.stderr.strip() == (
        f"Error: the Python module {module}.part is not installed: {cure}"
    )
    monkeypatch.setattr("nemotrt.doctor.diagnose", lambda: lost("nemotrt.nothing"))
    assert isinstance(CliRunner().invoke(main, ["doctor"]).exception, ModuleNotFoundError)


@pytest.mark.parametrize("path", all_commands(main), ids=" ".join)
def test_each_option_says_what_it_is(path: tuple[str, ...]) -> None:
    """Subject first: nothing whose sentence is to be guessed ("Of all streams.", "At a stop.")."""
    for param in command_at(path).params:
        if isinstance(param, click.Option) and not param.hidden:
            told = param.help or ""
            assert told and not told.startswith("["), param.opts
            assert not re.match(r"(Of|In|At|On|The same|Their|From|With|To) ", told), told
