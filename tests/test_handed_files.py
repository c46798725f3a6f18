"""Every file that a user can hand to a command, damaged in every way: one line, never a traceback.

The options are found by walking click's commands, so a new one fails here until it is placed.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.checkpoint.hub.parameter import CheckpointType

Arguments = Callable[[str, "Folders"], list[str]]


class Folders:
    """What a command needs beside the file under test."""

    def __init__(self, engine: Path, quantized: Path, root: Path) -> None:
        self.engine, self.quantized, self.root = str(engine), str(quantized), root
        self.count = 0

    def new(self, suffix: str = "") -> str:
        """A path at which nothing is."""
        self.count += 1
        return str(self.root / f"new{self.count}{suffix}")


QUANTIZE = ("quantize", "tiny", "-q", "--recipe")
SWEEP = ("plan", "sweep", "--gpu", "a10g", "--lengths", "64:64")  # of all it would be long
PROFILE = ("--isl", "8", "--osl", "4", "-n", "2", "-c", "1")
# The file's suffix, and the command that reads it; by command and parameter.
READ: dict[tuple[str, str], tuple[str, Arguments]] = {
    ("plan model", "--config"): (".yaml", lambda f, o: ["plan", "tiny", "--config", f]),
    ("plan model", "--calibrate"): (
        ".csv",
        lambda f, o: ["plan", "tiny", "--calibrate", f, "--output", o.new(".yaml")],
    ),
    ("plan model", "--gpu"): (".yaml", lambda f, o: ["plan", "tiny", "--gpu", f]),
    ("plan model", "model"): (".json", lambda f, o: ["plan", f]),
    ("plan model", "--baseline"): (".json", lambda f, o: ["plan", "tiny", "--baseline", f]),
    ("plan compare", "--config"): (
        ".yaml",
        lambda f, o: ["plan", "compare", "tiny", "--gpu", "a10g", "--config", f],
    ),
    ("plan compare", "--gpu"): (".yaml", lambda f, o: ["plan", "compare", "tiny", "--gpu", f]),
    ("plan compare", "model"): (".json", lambda f, o: ["plan", "compare", f, "--gpu", "a10g"]),
    ("plan sweep", "--config"): (".yaml", lambda f, o: [*SWEEP, "tiny", "--config", f]),
    ("plan sweep", "--gpu"): (".yaml", lambda f, o: ["plan", "sweep", "tiny", "--gpu", f]),
    ("plan sweep", "model"): (".json", lambda f, o: [*SWEEP, f]),
    ("plan sweep", "--baseline"): (
        ".json",
        lambda f, o: [*SWEEP, "tiny", "--baseline", f],
    ),
    ("plan validate", "--rows"): (".csv", lambda f, o: ["plan", "validate", "--rows", f]),
    ("quantize", "--config"): (
        ".yaml",
        lambda f, o: [*QUANTIZE, "int8-wo", "-o", o.new(), "--config", f],
    ),
    ("quantize", "--recipe"): (".yaml", lambda f, o: [*QUANTIZE, f, "-o", o.new()]),
    ("quantize", "--calibration"): (
        "",
        lambda f, o: [*QUANTIZE, "int8-sq", "-o", o.new(), "--calibration", f],
    ),
    ("quantize", "--text"): (
        ".jsonl",
        lambda f, o: [
            *QUANTIZE,
            "int8-sq",
            "-o",
            o.new(),
            "--calibration",
            o.new(),
            "--text",
            f,
        ],
    ),
    ("quantize", "checkpoint"): (
        "",
        lambda f, o: ["quantize", f, "--recipe", "int8-wo", "-o", o.new()],
    ),
    ("evaluate", "candidate"): ("", lambda f, o: ["evaluate", f, "--against", "tiny"]),
    ("evaluate", "--against"): ("", lambda f, o: ["evaluate", o.engine, "--against", f]),
    ("evaluate", "--keep"): (
        "",
        lambda f, o: [
            "evaluate",
            o.quantized,
            "--against",
            "tiny",
            "--sequences",
            "1",
            "--keep",
            f,
        ],
    ),
    ("evaluate", "--text"): (
        ".jsonl",
        lambda f, o: ["evaluate", o.engine, "--against", "tiny", "--text", f],
    ),
    ("build", "checkpoint"): (
        "",
        lambda f, o: ["build", f, "--backend", "onnxruntime", "-o", o.new()],
    ),
    ("build", "--limits"): (
        ".yaml",
        lambda f, o: ["build", "tiny", "--backend", "onnxruntime", "-o", o.new(), "--limits", f],
    ),
    ("pack", "engine"): ("", lambda f, o: ["pack", f, "-o", o.new()]),
    ("check", "engine"): ("", lambda f, o: ["check", f]),
    ("inspect", "--checkpoint"): ("", lambda f, o: ["inspect", o.engine, "--checkpoint", f]),
    ("inspect", "folder"): ("", lambda f, o: ["inspect", f]),
    ("inspect", "--source"): ("", lambda f, o: ["inspect", o.quantized, "--source", f]),
    ("generate", "engine"): ("", lambda f, o: ["generate", f, "hello"]),
    ("chat", "engine"): ("", lambda f, o: ["chat", f]),
    ("serve compose", "engine"): ("", lambda f, o: ["serve", "compose", f, "--image", "i"]),
    ("serve front", "engine"): ("", lambda f, o: ["serve", "front", f, "--triton", "h:1"]),
    ("serve front", "--api-key-file"): (
        ".txt",
        lambda f, o: ["serve", "front", o.engine, "--triton", "h:1", "--api-key-file", f],
    ),
    ("serve k8s", "engine"): (
        "",
        lambda f, o: ["serve", "k8s", f, "--image", "i", "--claim", "c"],
    ),
    ("serve repo", "engine"): ("", lambda f, o: ["serve", "repo", f, "-o", o.new()]),
    ("serve run", "engine"): ("", lambda f, o: ["serve", "run", f, "--no-triton"]),
    ("serve run", "--api-key-file"): (
        ".txt",
        lambda f, o: [
            "serve",
            "run",
            o.engine,
            "--no-triton",
            "--run-dir",
            o.new(),
            "--api-key-file",
            f,
        ],
    ),
    ("serve run", "--runtime"): (
        "",
        lambda f, o: ["serve", "run", o.engine, "--run-dir", o.new(), "--runtime", f],
    ),
    ("profile compare", "candidate"): (".json", lambda f, o: ["compare", f, f]),
    ("profile compare", "baseline"): (".jsonl", lambda f, o: ["compare", f, f]),
    ("profile report", "runs"): (".jsonl", lambda f, o: ["report", f]),
    ("profile engine", "engine"): ("", lambda f, o: ["profile", "engine", f]),
    ("profile run", "target"): ("", lambda f, o: ["profile", "run", f, "-o", o.new()]),
    ("profile run", "--trace"): (
        ".jsonl",
        lambda f, o: ["profile", "run", o.engine, "-o", o.new(), "--trace", f],
    ),
    ("profile run", "--tokenizer"): (
        "",
        lambda f, o: [
            "profile",
            "run",
            "http://127.0.0.1:9",
            "-o",
            o.new(),
            "--tokenizer",
            f,
        ],
    ),
    ("profile run", "--aiperf"): (
        "",
        lambda f, o: [
            "profile",
            "run",
            "http://127.0.0.1:9",
            "-o",
            o.new(),
            "--tokenizer",
            "tiny",
            "--driver",
            "aiperf",
            "--aiperf",
            f,
        ],
    ),
}
# Text parameters that name a file or a folder; the types of the others tell that they do.
NAMES = {
    ("plan model", "--gpu"),
    ("plan sweep", "--gpu"),
    ("plan compare", "--gpu"),
    ("quantize", "--recipe"),
    ("profile run", "target"),
    ("profile run", "--aiperf"),
}
PATHS = click.Path | click.File | CheckpointType
# What a command writes, or makes.
WRITTEN = {
    "--output",
    "--write-limits",
    "--plot",
    "--csv",
    "--page",
    "--run-dir",
}
# Parameters that are tried elsewhere, and where.
ELSEWHERE = {
    ("serve run", "--tls-certificate"): "tests/serve",
    ("serve run", "--tls-key"): "tests/serve",
    ("serve front", "--tls-certificate"): "tests/serve",
    ("serve front", "--tls-key"): "tests/serve",
    ("serve install", "--runtime"): "tests/serve: it is written",
    ("evaluate", "--task-folder"): "tests/quantize/quality: lm-eval reads it",
    ("profile run", "--predict-model"): "plan's MODEL; a fault becomes a note",
    ("compare", "candidate"): "the same command as `profile compare`",
    ("compare", "baseline"): "the same command as `profile compare`",
    ("report", "runs"): "the same command as `profile report`",
}
ALIKE = [  # --config is read by one function, before all else; plan and quantize stand for these
    "build",
    "chat",
    "check",
    "compare",
    "demo",
    "doctor",
    "evaluate",
    "generate",
    "inspect",
    "pack",
    "profile compare",
    "profile engine",
    "profile gpu",
    "profile miniature",
    "profile run",
    "serve compose",
    "serve front",
    "serve k8s",
    "serve repo",
    "serve run",
]
ELSEWHERE |= {(name, "--config"): "the one loader, tests/test_commandline.py" for name in ALIKE}
OPENS = [  # --checkpoint is resolved by one function; inspect stands for these
    "check",
    "pack",
    "evaluate",
    "generate",
    "chat",
    "profile run",
    "profile engine",
    "serve run",
    "serve repo",
    "serve k8s",
    "serve compose",
]
ELSEWHERE |= {(name, "--checkpoint"): "tests/test_engine_options.py" for name in OPENS}
BYTES = {
    "latin-1": b"model: na\xefve\nkey: \xff\n",
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "empty": b"",
    "zeros": bytes(64),
    "deep": b"[" * 100_000,
    "list": b"[1, 2]\n",
    "number": b"5\n",
    "nan": b'{"a": NaN}\n',
    "mark": b"\xef\xbb\xbf",
}
ODD = ("folder", "unreadable", "missing", "loop")
# Not faults: an empty YAML sets nothing; a folder for what is computed once is made.
FINE = {
    ("plan model", "--config", "empty"),
    ("plan compare", "--config", "empty"),
    ("plan sweep", "--config", "empty"),
    ("quantize", "--config", "empty"),
    ("plan model", "--config", "mark"),
    ("plan compare", "--config", "mark"),
    ("plan sweep", "--config", "mark"),
    ("quantize", "--config", "mark"),
    ("quantize", "--calibration", "missing"),
    ("evaluate", "--keep", "missing"),
    ("evaluate", "--keep", "folder"),
}
# Any text is a key, so these would start a server.
KEY_FILES = ("deep", "list", "number", "nan")


def cases() -> Iterator[tuple[str, str, str]]:
    for command, parameter in READ:
        for kind in (*BYTES, *ODD):
            if parameter != "--api-key-file" or kind not in KEY_FILES:
                yield command, parameter, kind


def commands(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its words."""
    if not isinstance(command, click.Group):
        yield " ".join(path), command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from commands(found, (*path, name))


def path_parameters() -> Iterator[tuple[str, str]]:
    for name, command in commands(main):
        for parameter in command.params:
            option = max(parameter.opts, key=len)
            if isinstance(parameter.type, PATHS) or (name, option) in NAMES:
                yield name, option


def test_every_path_has_its_place() -> None:
    found = set(path_parameters())
    placed = set(READ) | set(ELSEWHERE) | {(n, o) for n, o in found if o in WRITTEN}
    assert found <= placed, "a new parameter: say how it is read"
    assert set(READ) <= found


def test_every_config_file_is_read_alike() -> None:
    options = [
        (name, parameter)
        for name, command in commands(main)
        for parameter in command.params
        if "--config" in parameter.opts
    ]
    assert {name for name, _ in options} >= set(ALIKE)
    assert len({parameter.callback for _, parameter in options}) == 1


def damaged(root: Path, kind: str, suffix: str) -> Path:
    path = root / f"{kind}-handed{suffix}"
    if kind in BYTES:
        path.write_bytes(BYTES[kind])
        path.chmod(0o600)
    elif kind == "folder":
        path.mkdir()
    elif kind == "unreadable":
        path.symlink_to("/proc/self/mem")  # opens, and fails to be read, also for root
    elif kind == "loop":
        path.symlink_to(path)
    return path


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("quantized") / "q"
    done = CliRunner().invoke(main, [*QUANTIZE, "int8-wo", "-o", str(target)])
    assert done.exit_code == 0, done.output
    return target


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="Linux's /proc")
@pytest.mark.parametrize(("command", "parameter", "kind"), [*cases()])
def test_a_damaged_file_is_one_line(
    command: str, parameter: str, kind: str, tmp_path: Path, tiny_engine: Path, quantized: Path
) -> None:
    suffix, arguments = READ[command, parameter]
    path = damaged(tmp_path, kind, suffix)
    done = CliRunner().invoke(main, arguments(str(path), Folders(tiny_engine, quantized, tmp_path)))
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    if (command, parameter, kind) in FINE:
        assert done.exit_code == 0, done.stderr
        return
    assert done.exit_code in (1, 2, 3, 5), done.output
    said = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(said) == 1, done.stderr
    assert path.stem in said[0]


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    """Windows' editors write one."""
    config = tmp_path / "plan.yaml"
    config.write_bytes(b"\xef\xbb\xbfisl: 100\n")
    done = CliRunner().invoke(main, ["plan", "tiny", "--config", str(config), "--json"])
    assert done.exit_code == 0, done.stderr
    assert '"isl": 100' in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["inspect", "LINK"],
        ["build", "LINK", "-o", "out"],
        ["plan", "LINK"],
        ["plan", "tiny", "--gpu", "LINK"],
        ["plan", "tiny", "--config=LINK"],
        ["quantize", "LINK", "--recipe", "int8-wo", "-o", "out"],
        ["generate", "LINK", "The"],
        ["serve", "repo", "LINK", "-o", "out"],
        ["pack", "LINK", "-o", "out"],
        ["profile", "report", "LINK"],
        ["compare", "LINK", "LINK"],
        ["evaluate", "tiny", "--against", "LINK"],
        ["evaluate", "tiny", "--against", "tiny", "--text", "LINK"],
        ["check", "LINK"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_link_to_nothing_is_called_so(tmp_path, monkeypatch, words: list[str]) -> None:
    """Whatever else the command says of it: a folder was copied or mounted without its target."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").symlink_to("/gone/away")
    done = CliRunner().invoke(main, [word.replace("LINK", "model") for word in words])
    assert done.exit_code in (1, 2), done.output
    assert "model is a link to /gone/away, which is not here" in done.stderr


@pytest.mark.parametrize("prompt", ["a" * 5000, "a/" * 3000, "=" + "b" * 5000, "", "\udce9"])
def test_a_fault_beside_any_prompt_is_one_line(prompt: str) -> None:
    """A prompt is no path: it may be longer than any, or empty."""
    done = CliRunner().invoke(main, ["generate", "tiny", prompt, "--system", "Be brief."])
    assert done.exit_code == 2 and "--system goes with --chat" in done.stderr, done.exception
