"""What a container sees is enough: the mounts of compose and k8s, and the repository's folder."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.artefact.weights import open_weights
from support import movable, reference

KINDS = ("folder", "hub", "packed")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("s") / "source"
    reference.save(reference.nemotron_h("M-*M-"), folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors gives its user alone a file
    return folder


def hub_folder(source: Path, root: Path) -> Path:
    """The same as the hub's cache has it: links to blobs beside the snapshots."""
    blobs, snapshot = root / "models--x--y/blobs", root / "models--x--y/snapshots/abc123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(source.iterdir())):
        shutil.copyfile(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    return snapshot


def make(kind: str, source: Path, home: Path) -> Path:
    """An engine in `home`, beside its checkpoint or packed."""
    home.mkdir()
    checkpoint = (
        hub_folder(source, home)
        if kind == "hub"
        else Path(shutil.copytree(source, home / "check $point"))
    )
    engine = movable.write("tensorrt-llm", checkpoint, home / "engine")
    if kind != "packed":
        return engine
    assert run("pack", engine, "-o", home / "packed").exit_code == 0
    return home / "packed"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def opens_in(root: Path, command: list[str]) -> None:
    """Check that a container's command finds engine and weights below `root`, and nothing else."""
    assert command[:3] == ["nemotrt", "serve", "/engine"]
    engine = root / "engine"
    given = command[command.index("--checkpoint") + 1] if "--checkpoint" in command else None
    inside = None if given is None else f"{root}{given}"
    manifest = read_manifest(engine)
    found = open_weights(engine, manifest, OpenOptions(checkpoint=inside))
    for ref in found.tensors.values():
        assert ref.path.resolve().is_relative_to(root.resolve())


@pytest.mark.parametrize("kind", KINDS)
def test_the_mounts_of_compose_are_enough(kind, source, tmp_path) -> None:
    engine = make(kind, source, tmp_path / "home")
    result = run("serve", "compose", engine, "--image", "i")
    assert result.exit_code == 0, result.output
    [service] = yaml.safe_load(result.stdout)["services"].values()
    root = tmp_path / "container"
    for volume in service["volumes"]:
        assert volume["read_only"] is True
        host = Path(volume["source"].replace("$$", "$"))
        shutil.copytree(host, root / volume["target"].lstrip("/"), symlinks=True)
    assert len(service["volumes"]) == (1 if kind == "packed" else 2)
    shutil.rmtree(tmp_path / "home")
    opens_in(root, [word.replace("$$", "$") for word in service["command"]])


def test_links_that_a_container_can_not_follow_are_refused(source, tmp_path) -> None:
    home = tmp_path / "home"
    engine = make("folder", source, home)
    weights = home / "check $point" / "model.safetensors"
    for target in ("../elsewhere.safetensors", str(home / "elsewhere.safetensors")):
        os.replace(weights, home / "elsewhere.safetensors")
        weights.symlink_to(target)
        refused = run("serve", "compose", engine, "--image", "i")
        assert refused.exit_code == 2 and f"nemotrt pack {engine} -o DIR" in refused.stderr
        weights.unlink()
        os.replace(home / "elsewhere.safetensors", weights)
    assert run("serve", "compose", engine, "--image", "i").exit_code == 0


def mounted(engine: Path, *options: str) -> tuple[dict[str, str], list[str]]:
    """What a pod mounts of the claim: place -> path inside it; and its command."""
    result = run("serve", "k8s", engine, "--image", "i", "--claim", "c", *options)
    assert result.exit_code == 0, result.output
    documents: list[Any] = list(yaml.safe_load_all(result.stdout))
    [container] = documents[0]["spec"]["template"]["spec"]["containers"]
    mounts = [mount for mount in container["volumeMounts"] if mount["name"] == "engine"]
    assert all(mount["readOnly"] for mount in mounts)
    return {mount["mountPath"]: mount["subPath"] for mount in mounts}, container["command"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_mounts_of_kubernetes_are_enough(kind, source, tmp_path) -> None:
    """The claim has the engine and, unless packed, the checkpoint as a folder."""
    home, claim, root = tmp_path / "home", tmp_path / "claim", tmp_path / "pod"
    engine = make(kind, source, home)
    shutil.copytree(engine, claim / "e")
    shutil.copytree(source, claim / "c")
    more = () if kind == "packed" else ("--checkpoint-path", "c")
    mounts, command = mounted(engine, "--engine-path", "e", *more)
    for target, path in mounts.items():
        shutil.copytree(claim / path, root / target.lstrip("/"))
    shutil.rmtree(home)
    opens_in(root, command)
    if kind != "packed":
        assert mounted(claim / "e")[0] == {"/engine": "engine", "/checkpoint": "checkpoint"}
        bad = ("serve", "k8s", claim / "e", "--image", "i", "--claim", "c", "--checkpoint-path")
        assert run(*bad, "../c").exit_code == 2


def engine_options(text: str) -> str:
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    return str(config.parameters["engine_options"].string_value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_repository_holds_the_weights_too(kind, source, tmp_path) -> None:
    engine = make(kind, source, tmp_path / "home")
    words = ("serve", "repo", engine, "-o", tmp_path / "r", "--target", "container")
    result = run(*words, "--include-engine")
    assert result.exit_code == 0, result.output
    moved = (tmp_path / "r").rename(tmp_path / "store")
    shutil.rmtree(tmp_path / "home")
    assert engine_options((moved / "llm/config.pbtxt").read_text()) == ""
    opens_in(moved / "llm/1", ["nemotrt", "serve", "/engine"])


def test_a_repository_beside_mounted_weights_says_where_they_are(source, tmp_path) -> None:
    engine = make("folder", source, tmp_path / "home")
    words = ("serve", "repo", engine, "-o", tmp_path / "r", "--target", "container", "--dry-run")
    assert engine_options(run(*words).stdout) == ""  # as engine.json says
    moved = (tmp_path / "home/check $point").rename(tmp_path / "moved")
    assert run(*words).exit_code == 1
    assert engine_options(run(*words, "--checkpoint", moved).stdout) == f"--checkpoint {moved}"
    found = engine_options(run(*words, "--checkpoint-path", "/mnt/c").stdout)
    assert found == "--checkpoint /mnt/c"
    assert run(*words, "--checkpoint-path", "mnt/c").exit_code == 2


@pytest.mark.parametrize("backend", ["tensorrt-llm", "native"])
def test_the_server_hands_its_process_a_checkpoint(backend, source, tmp_path, monkeypatch) -> None:
    """From any working folder: as an absolute path, checked before anything starts."""
    from nemotrt.engines.artefact.options import OpenOptions
    from nemotrt.serve.processes.options import EngineOptions, FrontOptions
    from nemotrt.serve.processes.run_folder import create_run_folder
    from nemotrt.serve.supervision.serve_spec import ServeSpec
    from nemotrt.serve.supervision.supervisor import Supervisor

    engine = movable.write(backend, source, tmp_path / "engine")
    shutil.copytree(source, tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    process = EngineOptions(opening=OpenOptions(checkpoint="moved", trust_seals=False))
    spec = ServeSpec(engine, FrontOptions(port=0), use_triton=False, process=process)
    command = Supervisor(spec, create_run_folder(tmp_path / "run")).services[0].spec.command()
    at = command.index("--checkpoint")
    assert command[at + 1] == str(tmp_path / "moved") and "--verify" in command
