"""The registry is the one list: what leaves it is gone everywhere, what joins it is everywhere."""

import dataclasses
import importlib.util
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from nemotrt.build import command as build_command
from nemotrt.build.backend_options import backend_options, default_backend
from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.build.support_table import lines, row
from nemotrt.cli import main
from nemotrt.commandline.kinds import COUNT
from nemotrt.commandline.options import option
from nemotrt.doctor import diagnose
from nemotrt.engines.artefact.manifest import Manifest, read_manifest
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.backend import Backend, BuildJob, Executed, Payload, Target
from nemotrt.engines.backends.protocol.options import tp_size
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import check_threads, open_engine
from nemotrt.engines.runtime.engine import Engine, Feed, Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.needs import Ability, Package
from support.flat_engine import FlatEngine

ROOT = Path(__file__).resolve().parents[3]
LIMITS = Limits(max_batch_size=1, max_seq_len=64, chunk_tokens=16)
# What each can be built for here, without its own tools.
BUILT_HERE: dict[str, tuple[str | None, Precision]] = {
    "onnxruntime": (None, Precision.BF16),
    "native": (None, Precision.BF16),
    "tensorrt-llm": ("h100", Precision.BF16),
}


def lose(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a backend out of the registry; the others keep their order, now and afterwards."""
    rest = {key: entry for key, entry in registry.BACKENDS.items() if key != name}
    monkeypatch.setattr(registry, "BACKENDS", rest)


def fresh_command() -> ModuleType:
    """The command's module as a new process would read it."""
    spec = importlib.util.spec_from_file_location("fresh_command", build_command.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build_with_fresh_command(*arguments: object) -> Result:
    return CliRunner().invoke(fresh_command().build, [str(argument) for argument in arguments])


def first_step(folder: Path) -> np.ndarray[Any, Any]:
    engine = open_engine(folder).engine
    logits = engine.step([Feed(engine.allocate(), [1, 2, 3])])
    engine.close()
    return logits


@pytest.mark.parametrize("name", registry.names())
def test_every_object_says_what_it_must(name: str) -> None:
    backend = registry.find(name)
    assert backend.name == name
    assert dataclasses.is_dataclass(backend.options_type)
    assert backend.options_type.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert backend == registry.find(name)
    assert backend.is_cpu == (backend.executed is Executed.HERE) == (not backend.not_executed_note)


@pytest.mark.parametrize("lost", registry.names())
def test_without_any_one_of_them_the_others_work(
    lost: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = TINY_MODELS["tiny"]
    if lost in BUILT_HERE:
        gpu, precision = BUILT_HERE[lost]
        build_engine(source, tmp_path / "lost", BuildSpec(lost, gpu, precision, LIMITS))
    lose(lost, monkeypatch)
    rest = registry.names()

    for backend, (gpu, precision) in BUILT_HERE.items():
        if backend == lost:
            continue
        target = tmp_path / backend
        build_engine(source, target, BuildSpec(backend, gpu, precision, LIMITS))
        if gpu is None:
            assert np.isfinite(first_step(target)).all()
    gpus = [name for name in rest if not registry.find(name).is_cpu]
    assert list(row("a10g", Precision.BF16))[3:] == gpus
    assert f"cpu, {lost}: " not in "\n".join(lines())
    assert not any(f"({lost})" in ability.name for ability in diagnose().abilities)
    assert lost not in {name for option in backend_options() for name in option.backends}
    assert default_backend(None)[0] in registry.cpu_names()
    assert default_backend("a10g")[0] == gpus[0] != lost
    result = build_with_fresh_command("tiny", "-o", tmp_path / "x", "--backend", lost)
    assert result.exit_code == 2 and f"'{lost}' is not one of" in result.stderr
    with pytest.raises(ConfigError, match=rf"unknown backend '{lost}'.*Known: {', '.join(rest)}"):
        build_engine(source, tmp_path / "x", BuildSpec(lost, None, None, LIMITS))


@pytest.mark.parametrize("lost", BUILT_HERE)
def test_an_engine_of_a_lost_backend_is_inspected_and_not_opened(
    lost: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu, precision = BUILT_HERE[lost]
    engine = tmp_path / "e"
    build_engine(TINY_MODELS["tiny"], engine, BuildSpec(lost, gpu, precision, LIMITS))
    lose(lost, monkeypatch)
    with pytest.raises(ConfigError, match=f"unknown backend '{lost}'"):
        open_engine(engine)
    with pytest.raises(ConfigError, match=f"this engine is {lost}'s"):
        check_threads(read_manifest(engine), 1)
    result = CliRunner().invoke(main, ["inspect", str(engine)])
    assert result.exit_code == 0 and re.search(f"^backend +{lost}$", result.stdout, re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class ToyOptions:
    """An option of its own, and one that others have too."""

    toy_size: int = option(3, "bricks.", kind=COUNT)
    tp_size: int = tp_size()


class ToyBackend(Backend[ToyOptions]):
    """A GPU backend that fits into a test."""

    name = "toy"
    options_type = ToyOptions
    executed = Executed.NEVER
    not_executed_note = "Stacked, not executed."
    built = "stacked, not executed"
    built_how = (("stacked, not executed", "brick by brick"),)
    state_element_bytes = 2
    weights_place = "in the box"
    abilities = (
        Ability("stack here (toy)", (Package("toy-bricks", "stack", "toys"),), needs_gpu=True),
    )

    def supports(self, compute_capability: str | None, precision: Precision) -> str | None:
        return None if precision is Precision.BF16 else f"toys have no {precision}"

    def check(self, target: Target[ToyOptions]) -> None:
        if reason := self.supports(target.capability, target.precision):
            raise ConfigError(reason)

    def build(self, target: Target[ToyOptions], job: BuildJob) -> Payload:
        (job.folder / "bricks").write_text("b" * target.options.toy_size)
        return Payload({"toy": "1"}, {"toy_size": target.options.toy_size}, {})

    def open(self, folder: Path, manifest: Manifest, options: OpenOptions) -> Engine:
        return FlatEngine(len((folder / "bricks").read_text()))


def is_near(found: Sequence[str], *wanted: str) -> bool:
    return all(any(word in line for line in found) for word in wanted)


def test_what_joins_is_known_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(registry, "BACKENDS", registry.BACKENDS | {"toy": ToyBackend()})
    assert row("a10g", Precision.BF16)["toy"] == "stacked, not executed"
    assert row("a10g", Precision.FP8)["toy"] == "no"
    assert is_near(lines(), "tensorrt-llm-1.2", "toy", "stacked, not executed: brick by brick")
    text = build_with_fresh_command("--help").stdout
    assert "tensorrt-llm-1.2|toy]" in re.sub(r"\s+", "", text)
    assert re.search(r"--toy-size.*toy: bricks\.\s+\[default: 3; x>=1\]", text, re.DOTALL)
    assert "tensorrt-llm-1.2, toy: GPUs that share" in " ".join(text.split())

    command = ["tiny", "-o", tmp_path / "e", "--max-seq-len", 64, "--max-batch-size", 1]
    made = [*command, "--backend", "toy", "--gpu", "a10g", "--toy-size", 7]
    result = build_with_fresh_command(*made)
    assert result.exit_code == 0, result.output
    assert "Stacked, not executed." in result.stderr
    manifest = read_manifest(tmp_path / "e")
    assert (manifest.backend, manifest.executed) == ("toy", False)
    assert (manifest.options, manifest.tools) == ({"toy_size": 7}, {"toy": "1"})
    assert open_engine(tmp_path / "e").engine.vocab_size == FlatEngine(7).vocab_size
    inspected = CliRunner().invoke(main, ["inspect", str(tmp_path / "e")]).stdout
    assert "in the box" in inspected and "no: no GPU was there" in inspected
    with pytest.raises(ConfigError, match="this engine is toy's"):
        check_threads(manifest, 2)

    dry = [*command, "--backend", "native", "--dry-run", "--force"]
    assert json.loads(build_with_fresh_command(*dry, "--json").stdout)["toy_size"] == 3
    refused = build_with_fresh_command(*dry, "--toy-size", 3)
    assert refused.exit_code == 2
    assert "--toy-size is for backend toy, not native." in refused.stderr
    found = diagnose()
    assert {"toy-bricks": "pip install 'nemotrt[toys]'"}.items() <= {
        package.name: package.install for package in found.packages
    }.items()
    (ability,) = (ability for ability in found.abilities if ability.name == "stack here (toy)")
    assert "nemotrt[toys]" in ability.hint


def test_what_never_ran_says_so() -> None:
    """`build --list`, the manual's table and the note after a build read or repeat one fact."""
    page = (ROOT / "docs/reference/backends/index.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w.-]+)`[^|]*\| (.*) \|$", page, re.MULTILINE))
    assert {name for name in rows if name in registry.names()} == set(registry.names())
    for backend in registry.backends():
        has_run = backend.executed is Executed.HERE
        assert ("not executed" in rows[backend.name]) != has_run, backend.name
        assert ("run and tested" in rows[backend.name]) == has_run, backend.name
        assert ("not executed" in backend.built) != has_run
        assert ("not executed" in backend.not_executed_note) != has_run
        for word, _ in backend.built_how:
            assert "not executed" in word or "not tried" in word
        assert all("not executed" in note for note in backend.table_notes)


def test_unknown_and_foreign_names() -> None:
    with pytest.raises(ConfigError, match="unknown backend 'nativ'; did you mean 'native'"):
        registry.find("nativ")
    assert registry.get("nativ") is None
    with pytest.raises(ConfigError, match="backend tensorrt does not run on the CPU"):
        registry.find_cpu("tensorrt")
