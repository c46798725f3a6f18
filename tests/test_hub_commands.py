"""Hub ids on the command line: every parameter that takes a checkpoint takes one."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import huggingface_hub.constants
import pytest
from click.testing import CliRunner, Result

from nemotrt import cli
from nemotrt.cli import main
from nemotrt.engines.checkpoint.hub.cache import hub_cache
from nemotrt.engines.checkpoint.hub.parameter import CheckpointType
from nemotrt.engines.tiny.models import TINY_MODELS
from support.hub import Hub, Repository, files_of, serving
from test_surface_commands import commands

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Each parameter of a checkpoint, and a call with it; ID is the hub id. A new one is added here.
CALLS = {
    ("plan model", "model"): "plan ID --gpu a10g",
    ("plan model", "--baseline"): "plan tiny --gpu a10g --baseline ID",
    ("plan sweep", "model"): "plan sweep ID --gpu a10g --precision bf16 --lengths 64:64",
    ("plan sweep", "--baseline"): "plan sweep tiny --baseline ID --gpu a10g --lengths 64:64",
    ("plan compare", "model"): "plan compare ID --gpu a10g --precision bf16",
    ("quantize", "checkpoint"): "quantize ID --recipe int8-wo -o OUT --dry-run",
    ("evaluate", "candidate"): "evaluate ID --against tiny --sequences 1 --sequence-tokens 8",
    ("evaluate", "--against"): "evaluate tiny --against ID --sequences 1 --sequence-tokens 8",
    ("build", "checkpoint"): "build ID -o OUT --dry-run",
    ("generate", "engine"): "generate ID Hello --max-tokens 1",
    ("chat", "engine"): "chat ID",
    ("serve run", "engine"): "serve ID --dry-run --no-triton --port 0 --run-dir OUT",
    ("profile run", "target"): "profile ID -n 1 --isl 8 --osl 2 -o OUT --no-gpu",
    ("profile engine", "engine"): "profile engine ID --steps 1 --held 8",
    ("inspect", "folder"): "inspect ID",
    ("inspect", "--source"): "inspect INT8 --source ID",
    **{
        (path, "--checkpoint"): line
        for path, line in {
            "pack": "pack BUNDLE -o OUT --force --checkpoint ID",
            "inspect": "inspect BUNDLE --here --checkpoint ID",
            "evaluate": "evaluate ENGINE --against tiny --sequences 1 --sequence-tokens 8 "
            "--checkpoint ID",
            "check": "check ENGINE --checkpoint ID",
            "chat": "chat ENGINE --checkpoint ID",
            "generate": "generate ENGINE Hello --max-tokens 1 --checkpoint ID",
            "profile run": "profile ENGINE -n 1 --isl 8 --osl 2 -o OUT --no-gpu --checkpoint ID",
            "profile engine": "profile engine NATIVE --steps 1 --held 8 --checkpoint ID",
            "serve run": "serve BUNDLE --dry-run --no-triton --port 0 --run-dir OUT "
            "--checkpoint ID",
            "serve repo": "serve repo BUNDLE -o OUT --force --target container --checkpoint ID",
            "serve k8s": "serve k8s BUNDLE --image i --claim c --checkpoint ID",
            "serve compose": "serve compose BUNDLE --image i --checkpoint ID",
        }.items()
    },
    ("profile run", "--tokenizer"): "profile http://127.0.0.1:9 --tokenizer ID -o OUT",
    ("profile run", "--predict-model"): (
        "profile ENGINE -n 1 --isl 8 --osl 2 --predict a10g --predict-model ID "
        "--predict-precision bf16 -o OUT --json --no-gpu"
    ),
}
ALL_SPELLINGS = ("plan model", "build", "inspect")  # the rest are tried with one spelling of the id
# What is said though the checkpoint was found: nothing listens there, no GPU is here.
ENDS = {("profile run", "--tokenizer"): 3, ("inspect", "--checkpoint"): 3}


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model as x/tiny in a cache as the client lays it out; no network."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    folder = hub_cache() / "models--x--tiny"
    for path in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (folder / path).mkdir(parents=True)
    (folder / "refs/main").write_text(COMMIT)
    for index, path in enumerate(TINY_MODELS["tiny"].iterdir()):
        shutil.copyfile(path, folder / f"blobs/{index}")
        (folder / "snapshots" / COMMIT / path.name).symlink_to(f"../../blobs/{index}")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine that leaves its weights in the checkpoint."""
    target = tmp_path_factory.mktemp("bundle") / "bundle"
    run(f"build tiny --backend tensorrt-llm --gpu h100 -o {target}", 0)
    return target


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("native") / "native"
    run(f"build tiny --backend native -o {target}", 0)
    return target


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("int8") / "int8"
    run(f"quantize tiny --recipe int8-wo -o {target} -q", 0)
    return target


def run(line: str, code: int, **environment: str) -> Result:
    result = CliRunner().invoke(main, line.split(), env=environment)
    assert result.exit_code == code, (line, result.output, result.exception)
    return result


def of_checkpoints() -> dict[tuple[str, str], click.Command]:
    return {
        (path.removeprefix("nemotrt "), max(param.opts, key=len)): command
        for path, command in commands(main)
        for param in command.params
        if isinstance(param.type, CheckpointType)
    }


def test_every_parameter_of_a_checkpoint_is_known_here() -> None:
    assert of_checkpoints().keys() == CALLS.keys()
    for (path, _), command in of_checkpoints().items():
        assert any("--offline" in param.opts for param in command.params), path
    for path, command in commands(main):
        for param in command.params:
            told = f"{param.name} {param.metavar} {getattr(param, 'help', '')}".lower()
            is_free = isinstance(param.type, click.Path | type(click.STRING))
            if param.name == "checkpoint_path":
                continue  # of a container or a claim, not of this machine
            if is_free and {"checkpoint", "tokenizer", "hub"} & {*re.findall(r"\w+", told)}:
                raise AssertionError(f"{path} {param.name} is not of the one type")


@pytest.mark.parametrize("call", CALLS, ids=" ".join)
def test_each_takes_a_hub_id(
    call: tuple[str, str],
    cached: Path,
    int8: Path,
    bundle: Path,
    native: Path,
    tiny_engine: Path,
    tmp_path: Path,
) -> None:
    line = CALLS[call].replace("OUT", str(tmp_path / "out"))
    folders = {"INT8": int8, "BUNDLE": bundle, "NATIVE": native, "ENGINE": tiny_engine}
    for word, folder in folders.items():
        line = line.replace(word, str(folder))
    for name in ("x/tiny", f"x/tiny@{COMMIT}", str(cached))[: 3 if call[0] in ALL_SPELLINGS else 1]:
        result = run(line.replace("ID", name), ENDS.get(call, 0))
        assert "in the cache" not in result.output and "No prediction" not in result.output

    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    is_noted = call[1] == "--predict-model"  # a prediction is no reason to lose a run
    result = run(line.replace("ID", "x/other"), 0 if is_noted else 3)
    assert "x/other is no folder here, and is not in the cache" in result.output

    result = run(line.replace("ID", "x/tiny@../.."), 2)
    assert "is no revision" in result.output


def test_offline_is_for_the_length_of_a_command(
    cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    run("plan x/tiny --gpu a10g --offline", 0)
    assert "HF_HUB_OFFLINE" not in os.environ
    assert "--offline" in run("plan x/other --gpu a10g --offline", 3).output


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as served:
        served.repositories["x/tiny"] = Repository(files_of(TINY_MODELS["tiny"]), is_gated=True)
        for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_TOKEN", served.token)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield served


DRY = [
    call
    for call, command in of_checkpoints().items()
    if any("--dry-run" in param.opts for param in command.params)
]
BY_CONFIG = ("model", "--baseline", "--predict-model")  # which the planner reads alone


@pytest.mark.parametrize("call", DRY, ids=" ".join)
def test_a_dry_run_says_what_would_be_downloaded(
    call: tuple[str, str], hub: Hub, bundle: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    """Of any command, however deep it asks; nothing is written, and files in the cache serve."""
    line = CALLS[call].replace("OUT", str(tmp_path / "out")).replace("ID", "x/tiny")
    line = line.replace("BUNDLE", str(bundle)).replace("ENGINE", str(tiny_engine))
    line += "" if "--dry-run" in line else " --dry-run"
    before = {*tmp_path.rglob("*")}
    told = run(line, 3).output
    repository = hub.repositories["x/tiny"]
    assert "--dry-run downloads nothing" in told and f"x/tiny@{repository.commit}" in told
    [(count, size)] = re.findall(r": (\d+) files, ([\d.]+) MB", told)
    weights = len(repository.files["model.safetensors"]) / 1e6
    assert (int(count) == 1) == (call[1] in BY_CONFIG)
    assert (float(size) > weights) == (call[1] not in (*BY_CONFIG, "--tokenizer"))
    assert not hub.fetched() and {*tmp_path.rglob("*")} == before

    hub.asked.clear()
    assert "the network is off" in run(f"{line} --offline", 3).output and not hub.asked

    snapshot = hub_cache() / f"models--x--tiny/snapshots/{repository.commit}"
    for name in ("config.json", "tokenizer.json"):
        snapshot.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_bytes(repository.files[name])
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text(repository.commit)
    told = run(line, 0 if float(size) < weights else 3).output
    assert float(size) < weights or "lacks model.safetensors" in told
    assert not hub.fetched()


def test_from_the_hub_to_a_token(hub: Hub, tmp_path: Path) -> None:
    """Plan by the configuration alone, quantize, build, generate; each says where it came from."""
    origin = {"repository": "x/tiny", "revision": hub.repositories["x/tiny"].commit}
    told = "@".join(origin.values())
    run("plan x/tiny --gpu a10g", 0)
    assert hub.fetched() == ["config.json"]
    result = run(f"build x/tiny -o {tmp_path}/none --dry-run", 3)
    assert "not whole in the cache" in result.output and "--dry-run" in result.output

    run(f"build x/tiny -o {tmp_path}/engine", 0)
    assert "model.safetensors" in hub.fetched()
    engine = json.loads((tmp_path / "engine/engine.json").read_text())
    assert engine["checkpoint"]["origin"] == origin
    assert told in run(f"inspect {tmp_path}/engine", 0).output
    assert run(f"generate {tmp_path}/engine Hello --max-tokens 8", 0).output.strip()

    hub.asked.clear()
    run(f"quantize x/tiny --recipe int8-wo -o {tmp_path}/int8", 0)
    record = json.loads((tmp_path / "int8/nemotrt_quantize.json").read_text())
    assert record["origin"] == origin and not hub.asked
    run(f"build {tmp_path}/int8 -o {tmp_path}/engine8", 0)
    engine = json.loads((tmp_path / "engine8/engine.json").read_text())
    assert engine["checkpoint"]["origin"] == origin
    result = run(
        f"profile {tmp_path}/engine8 -n 1 --isl 8 --osl 2 --no-gpu --json -o {tmp_path}/run", 0
    )
    assert json.loads(result.stdout)["target"]["origin"] == told
    assert hub.token not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))


def test_an_older_engine_reads_as_not_recorded(tiny_engine: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_engine, tmp_path / "old")
    path = folder / "engine.json"
    manifest = json.loads(path.read_text())
    del manifest["checkpoint"]["origin"]
    path.write_text(json.dumps(manifest))
    assert "not recorded" in run(f"inspect {folder}", 0).output


def test_code_of_the_hub_is_not_trusted_where_it_was_never_downloaded(
    cached: Path, tmp_path: Path
) -> None:
    line = f"build x/tiny --backend tensorrt-llm --gpu a10g -o {tmp_path}/b --trust-remote-code"
    assert "never downloads" in run(line, 2).output


def test_no_child_inherits_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os; print(sorted(name for name in os.environ if 'TOKEN' in name))"

    @click.command()
    def child() -> None:
        click.echo(subprocess.check_output([sys.executable, "-c", code], text=True))

    monkeypatch.setattr(cli.LazyGroup, "get_command", lambda self, ctx, name: child)
    tokens = {"HF_TOKEN": "hf_secret", "HUGGING_FACE_HUB_TOKEN": "hf_older"}
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    assert run("doctor", 0, **tokens).output.strip() == "[]"
