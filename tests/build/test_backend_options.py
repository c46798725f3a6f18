"""Every option of `nemotrt build` beside every backend: it has an effect, or is refused by name."""

import itertools
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt.build.backend_options import backend_options
from nemotrt.build.command import build
from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.native.program.options import NativeOptions, StateFormat
from nemotrt.engines.backends.tensorrt.graph.options import MambaLayers, TensorRTOptions
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError, NemotrtError

BACKEND_OPTIONS, BACKENDS = backend_options(), registry.names()
GPUS = {"tensorrt": "a10g", "tensorrt-llm": "h100", "edge-llm": "a10g", "tensorrt-llm-1.2": "a100"}
# A value that is not the default, what BuildSpec makes of it, and what else it needs.
VALUES: dict[str, tuple[list[str], object, list[str]]] = {
    "--gpu": (["l40s"], "l40s", []),
    "--precision": (["int8-wo"], "int8-wo", []),
    "--max-batch-size": (["3"], 3, []),
    "--max-seq-len": (["640"], 640, []),
    "--chunk-tokens": (["32"], 32, []),
    "--exact": ([], True, ["--precision", "int8-wo"]),
    "--ssm-state": (["float16"], "float16", []),
    "--kv-cache": (["int8"], "int8", []),
    "--embed-weights": ([], True, []),
    "--workspace-gib": (["3"], 3 * 2**30, []),
    "--mamba": (["plugin"], "plugin", []),
    "--tp-size": (["2"], 2, []),
    "--trust-remote-code": ([], True, []),
    "--prefix-snapshots": (["256"], 256, []),
    "--avg-seq-len": (["300"], 300, []),
    "--max-loras": (["2"], 2, []),
    "--max-lora-rank": (["8"], 8, ["--max-loras", "2"]),
}
FIELDS = {
    "--gpu": "gpu",
    "--precision": "precision",
    "--max-batch-size": "max_batch_size",
    "--max-seq-len": "max_seq_len",
    "--chunk-tokens": "chunk_tokens",
} | {option.flag: option.field for option in BACKEND_OPTIONS}
# Of the call, whatever the backend.
OF_THE_CALL = {"--output", "--backend", "--limits", "--list", "--force", "--dry-run", "--quiet"}
OF_THE_CALL |= {"--json", "--offline", "--config", "--help", "--lora"}
DEFAULTS = {"--ssm-state": "float32", "--kv-cache": "fp32", "--mamba": "native", "--tp-size": "1"}


def run(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    command = ["build", "tiny", "-o", str(tmp_path / "e"), "--dry-run", "--json", *arguments]
    result = CliRunner().invoke(main, command)
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def target(backend: str) -> list[str]:
    return ["--backend", backend, *(["--gpu", GPUS[backend]] if backend in GPUS else [])]


def test_every_option_is_in_the_sweep() -> None:
    flags = {
        max(option.opts, key=len) for option in build.params if option.param_type_name == "option"
    }
    assert flags == set(VALUES) | OF_THE_CALL - {"--help"}
    assert {backend for option in BACKEND_OPTIONS for backend in option.backends} <= set(BACKENDS)


@pytest.mark.parametrize(("flag", "backend"), list(itertools.product(VALUES, BACKENDS)))
def test_an_option_has_an_effect_or_is_refused(flag: str, backend: str, tmp_path: Path) -> None:
    value, expected, needed = VALUES[flag]
    limits = ["--max-seq-len", "512", "--max-batch-size", "2"]
    arguments = [*target(backend), *limits, *needed, flag, *value]
    plain_code, plain, stderr = run(tmp_path, *target(backend), *limits)
    assert plain_code == 0, stderr
    code, stdout, stderr = run(tmp_path, *arguments)
    if code == 0:
        found, before = json.loads(stdout), json.loads(plain)
        found, before = found | found["limits"], before | before["limits"]
        assert found[FIELDS[flag]] == expected != before[FIELDS[flag]]
    elif (flag, backend) == ("--mamba", "tensorrt"):
        assert code == 3 and "plug" in stderr  # plugins are compiled on the GPU's own host
    else:
        assert code == 2, stderr
        assert flag in stderr or flag == "--precision", stderr
        assert backend in stderr or flag == "--precision", stderr
    has = {option.flag: option.backends for option in BACKEND_OPTIONS}.get(flag, BACKENDS)
    if flag == "--gpu":
        has = tuple(GPUS)
    assert code != 2 or backend not in has or flag == "--precision"
    assert code == 2 or backend in has


@pytest.mark.parametrize(("flag", "backend"), list(itertools.product(DEFAULTS, BACKENDS)))
def test_even_at_its_default_a_foreign_option_is_refused(
    flag: str, backend: str, tmp_path: Path
) -> None:
    (option,) = (option for option in BACKEND_OPTIONS if option.flag == flag)
    code, _, stderr = run(tmp_path, *target(backend), flag, DEFAULTS[flag])
    assert code == (0 if backend in option.backends else 2), stderr


def test_all_foreign_options_are_named(tmp_path: Path) -> None:
    given = ("--embed-weights", "--tp-size", "4", "--workspace-gib", "3")
    code, _, stderr = run(tmp_path, "--backend", "native", *given)
    assert code == 2
    assert (
        "--embed-weights is for backend tensorrt; --workspace-gib is for backend tensorrt; "
        "--tp-size is for backend tensorrt-llm and tensorrt-llm-1.2, not native." in stderr
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "choice",
    [
        {"is_exact": True},
        {"ssm_state": StateFormat.FLOAT16},
        {"kv_cache": StateFormat.INT8},
        {"is_embedded": True},
        {"workspace_bytes": 1},
        {"mamba": MambaLayers.PLUGIN},
        {"tp_size": 2},
        {"is_code_trusted": True},
    ],
    ids=str,
)
def test_the_library_refuses_what_the_command_refuses(
    backend: str, choice: dict[str, object], tmp_path: Path
) -> None:
    (option,) = (option for option in BACKEND_OPTIONS if option.field in choice)
    if backend in option.backends:
        return
    for owner in option.backends:
        options = registry.find(owner).options_type(**choice)
        spec = BuildSpec(backend, GPUS.get(backend), limits=Limits(1, 64, 16), options=options)
        with pytest.raises(ConfigError, match=f"{option.flag} is for backend .*, not {backend}"):
            build_engine(TINY_MODELS["tiny"], tmp_path / "e", spec)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("owner", BACKENDS)
def test_even_at_its_defaults_another_backends_options_are_refused(
    owner: str, backend: str, tmp_path: Path
) -> None:
    options = registry.find(owner).options_type()
    if isinstance(options, registry.find(backend).options_type):
        return
    spec = BuildSpec(backend, GPUS.get(backend), limits=Limits(1, 64, 16), options=options)
    with pytest.raises(
        ConfigError, match=f"backend {backend} has .*, not {type(options).__name__}"
    ):
        build_engine(TINY_MODELS["tiny"], tmp_path / "e", spec)


@pytest.mark.parametrize(
    ("model", "spec", "message"),
    [
        (
            "tiny-dense",
            BuildSpec("native", options=NativeOptions(StateFormat.FLOAT16)),
            "--ssm-state is for models with Mamba layers; qwen3 has none",
        ),
        (
            "tiny-dense",
            BuildSpec("tensorrt", "h100", options=TensorRTOptions(mamba=MambaLayers.PLUGIN)),
            "qwen3 has no Mamba layers",
        ),
    ],
)
def test_what_this_model_has_not_is_refused(
    model: str, spec: BuildSpec, message: str, tmp_path: Path
) -> None:
    with pytest.raises(NemotrtError, match=message):
        build_engine(TINY_MODELS[model], tmp_path / "e", spec)
