"""Every command that takes an engine finds one whose weights moved, or is named as an exception."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from nemotrt.cli import main
from nemotrt.engines.artefact.weights import VARIABLE
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.engine.host import main as host
from support import movable

# What a command calls an engine directory that it takes.
ENGINES = {
    "engine",
    "folder",  # inspect: or a checkpoint
    "candidate",  # evaluate: or a checkpoint
    "target",  # profile run: or a server
}
# Commands that open none of its weights, and why.
WITHOUT = {
    "serve front": "it reads the tokenizer; the engine is opened behind it",
    "compare": "a candidate there is a measured run",
    "profile compare": "the same",
}
# Those that write of an engine for elsewhere: what runs there verifies.
ELSEWHERE = {"serve repo", "serve compose", "serve k8s"}


def commands(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    with click.Context(command) as ctx:
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            yield from commands(child, f"{path} {name}".strip())


TAKES = {
    path: command
    for path, command in commands(main)
    if any(isinstance(p, click.Argument) and p.name in ENGINES for p in command.params)
} | {"the engine's process": host}


def test_every_command_takes_a_checkpoint_or_says_why_not() -> None:
    assert set(TAKES) >= set(WITHOUT) | ELSEWHERE
    for path, command in TAKES.items():
        options = {option for param in command.params for option in param.opts}
        assert ("--checkpoint" in options) == (path not in WITHOUT), path
        wants_verify = path not in set(WITHOUT) | ELSEWHERE
        assert ("--verify" in options) == wants_verify, path


OTHER = "model_type is qwen3, the engine's nemotron_h"
# How each is called: `E` is the engine, `N` a path at which nothing is.
CALLS = {
    "pack": "pack E -o N",
    "inspect": "inspect E",
    "generate": "generate E --prompt-ids 5",
    "chat": "chat E",
    "check": "check E",
    "evaluate": "evaluate E --against C --sequences 1 --sequence-tokens 4",
    "serve run": "serve run E --no-triton --dry-run --run-dir N",
    "serve repo": "serve repo E -o N --target container --include-engine",
    "serve repo, mounted": "serve repo E -o N --target container",
    "serve compose": "serve compose E --image i",
    "serve k8s": "serve k8s E --image i --claim c",
    "profile run": "profile run E -o N --isl 4 --osl 2 -n 1 --warmup 0 --no-gpu",
    "profile engine": "profile engine E --held 4",
    "the engine's process": "E --socket N",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that fails leaves its report in the working folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def source() -> Path:
    return TINY_MODELS["tiny"]


@pytest.fixture(scope="module")
def bundle(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A bundle whose checkpoint is gone; where that is now; another model's."""
    home = tmp_path_factory.mktemp("b")
    shutil.copytree(source, home / "checkpoint")
    engine = movable.write("tensorrt-llm", home / "checkpoint", home / "engine")
    return engine, (home / "checkpoint").rename(home / "moved"), TINY_MODELS["tiny-dense"]


@pytest.fixture(scope="module")
def inside(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine that holds its weights."""
    return movable.write("native", source, tmp_path_factory.mktemp("n") / "engine")


def call(name: str, engine: Path, source: Path, new: Path, *more: object) -> Result:
    words = {"E": str(engine), "N": str(new), "C": str(source)}
    arguments = [words.get(word, word) for word in CALLS[name].split()]
    command = host if name == "the engine's process" else main
    with movable.host_of("tensorrt-llm", engine):
        return CliRunner().invoke(command, [*arguments, *map(str, more)])


def refusal(name: str) -> int:
    """The exit code for a checkpoint that is none: 1 of `check` says that it computes wrong."""
    return 2 if name == "check" else 1


def test_every_such_command_is_called() -> None:
    assert {name.split(",")[0] for name in CALLS} == set(TAKES) - set(WITHOUT)


@pytest.mark.parametrize("name", CALLS)
def test_weights_that_moved(name, bundle, source, tmp_path, monkeypatch) -> None:
    engine, moved, other = bundle
    if name not in ("serve k8s", "profile engine"):  # the claim is elsewhere; see below
        refused = call(name, engine, source, tmp_path / "n")
        assert refused.exit_code == refusal(name), refused.output
        assert "which holds the engine's weights, is missing" in refused.stderr
    if name == "profile engine":  # it times native engines alone, which hold theirs
        return
    refused = call(name, engine, source, tmp_path / "n", "--checkpoint", other)
    assert refused.exit_code == refusal(name) and OTHER in refused.stderr
    assert not (tmp_path / "n").exists() or name in ("profile run", "serve run")
    if name in ("the engine's process", "evaluate", "check"):
        return  # one runs on, the others ask for logits; all open it as generate does
    found = call(name, engine, source, tmp_path / "n", "--checkpoint", moved)
    assert found.exit_code == 0, found.output
    monkeypatch.setenv(VARIABLE, str(moved))
    found = call(name, engine, source, tmp_path / "m")
    assert found.exit_code == 0, found.output


@pytest.mark.parametrize("name", CALLS)
def test_another_checkpoint_than_an_engine_holds_is_refused(
    name, inside, bundle, source, tmp_path
) -> None:
    refused = call(name, inside, source, tmp_path / "n", "--checkpoint", bundle[2])
    assert refused.exit_code == refusal(name) and OTHER in refused.stderr


def test_options_without_an_effect_are_refused_by_name(inside, source, tmp_path) -> None:
    for words in (
        f"inspect {source} --checkpoint {source}",
        f"inspect {source} --verify",
        f"inspect {source} --here",
        f"inspect {inside} --verify --no-verify",
        f"inspect {inside} --layers --here",
        f"evaluate {source} --against {source} --checkpoint {source}",
        f"evaluate {source} --against {source} --verify",
        f"profile run http://127.0.0.1:9 --tokenizer tiny --checkpoint {source} -o {tmp_path}/p",
        f"profile run http://127.0.0.1:9 --tokenizer tiny --verify -o {tmp_path}/p",
        f"serve repo {inside} -o {tmp_path}/r --checkpoint {source}",
        f"serve repo {inside} -o {tmp_path}/r --target container --checkpoint-path /c",
        f"serve repo {inside} -o {tmp_path}/r --target container --include-engine "
        "--checkpoint-path /c",
        f"serve k8s {inside} --image i --claim c --checkpoint-path c",
    ):
        result = CliRunner().invoke(main, words.split())
        assert result.exit_code == 2, (words, result.output)
        assert "--" in result.stderr


def test_inspect_says_what_is_there_and_its_exit_code_too(bundle, inside, monkeypatch) -> None:
    engine, moved, other = bundle

    def inspect(*arguments: object) -> tuple[int, dict[str, str], str]:
        with movable.host_of("tensorrt-llm", engine):
            result = CliRunner().invoke(main, ["inspect", *map(str, arguments), "--json"])
        found = json.loads(result.stdout)
        states = {check["name"]: check["state"] for check in found["checks"]}
        return result.exit_code, states, found["opens_here"]

    own = {"files": "yes", "checkpoint": "yes", "fingerprint": "yes", "weights": "yes"}
    machine = {"GPU": "no", "TensorRT-LLM": "yes"}
    lost = {"checkpoint": "no", "fingerprint": "unchecked", "weights": "unchecked"}
    assert inspect(engine) == (1, own | lost | machine, "no")
    assert inspect(engine, "--checkpoint", moved) == (0, own | machine, "no")
    assert inspect(engine, "--checkpoint", moved, "--here") == (3, own | machine, "no")
    wrong = own | {"fingerprint": "no", "weights": "unchecked"}
    assert inspect(engine, "--checkpoint", other) == (1, wrong | machine, "no")
    native = {"files": "yes", "weights": "yes", "compiled step": "yes"}
    assert inspect(inside, "--here") == (0, native, "yes")
    assert inspect(inside, "--no-verify") == (0, native | {"files": "unchecked"}, "unchecked")
    assert inspect(inside, "--no-verify", "--here")[0] == 3
    text = CliRunner().invoke(main, ["inspect", str(engine)]).stdout
    assert [line.split()[0] for line in text.splitlines() if "every SHA-256" in line] == ["yes"]
    assert "no        checkpoint" in text and "opens here      no" in text
    monkeypatch.setenv(VARIABLE, str(moved))
    assert f"{moved} (by ${VARIABLE})" in CliRunner().invoke(main, ["inspect", str(engine)]).stdout
