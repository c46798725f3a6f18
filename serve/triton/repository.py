"""Writes the model repository that tritonserver loads; the same inputs give the same bytes."""

import json
import shlex
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from shutil import copyfile

from nemotrt import wire
from nemotrt.build.packing import pack_into
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.opening import check_runs_here
from nemotrt.errors import ConfigError
from nemotrt.files.writing import writing_folder
from nemotrt.serve.processes.options import DEFAULT_NAME, check_model_name
from nemotrt.wire.tensors import INPUTS, OUTPUTS, TensorSpec

MODEL_FOLDER = Path(__file__).parent / "model"
WIRE_FOLDER = Path(wire.__path__[0])
WIRE_COPY = "nemotrt/wire"  # Triton's Python looks for packages in the version folder
INCLUDED = "engine"  # inside the version folder


class Target(StrEnum):
    """Whose Triton loads the repository."""

    LOCAL = "local"  # our supervisor's, which also runs the engine's process
    CONTAINER = "container"  # NVIDIA's image or any other: the model starts the engine's process


@dataclass(frozen=True, slots=True)
class RepositorySpec:
    """What a repository is to hold; the fields after `target` are of the container's alone.

    Args:
        model_name: also the model's folder.
        target: whose Triton loads it.
        engine_path: where ENGINE lies in the container; None copies it, with its weights, into the
            repository.
        python: an interpreter in the container that has nemotrt.
        engine_options: further options of the engine's process.
    """

    model_name: str = DEFAULT_NAME
    target: Target = Target.LOCAL
    engine_path: str | None = None
    python: str = "python3"
    engine_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what Triton and the container are told."""
        check_model_name(self.model_name)
        if self.engine_path is not None and not self.engine_path.startswith("/"):
            raise ConfigError(f"the engine's path {self.engine_path!r} must begin with '/'.")


def write_repository(
    engine: Path,
    target: Path,
    spec: RepositorySpec,
    *,
    force: bool,
    checkpoint: str | None = None,
) -> None:
    """Write the repository for the engine directory `engine` to `target`.

    `checkpoint` is where the weights of an engine are that is to be copied with them.

    Raises:
        ArtefactError: `engine` is no engine directory, or its checkpoint has gone or changed.
        ConfigError: `target` exists and `force` is false.
        EnvironmentUnfitError: another program runs the engine.
    """
    check_runs_here(engine, read_manifest(engine))
    with writing_folder(target, force=force) as partial:
        model = partial / spec.model_name
        version = model / "1"
        version.mkdir(parents=True)
        (model / "config.pbtxt").write_text(model_config(spec), encoding="utf-8")
        for folder, copy in ((MODEL_FOLDER, version), (WIRE_FOLDER, version / WIRE_COPY)):
            copy.mkdir(parents=True, exist_ok=True)
            for source in sorted(folder.glob("*.py")):
                copyfile(source, copy / source.name)
        if spec.target is Target.CONTAINER and spec.engine_path is None:
            pack_into(engine, version / INCLUDED, OpenOptions(checkpoint=checkpoint))


def model_config(spec: RepositorySpec) -> str:
    """Return the text of config.pbtxt."""
    lines = [
        f'name: "{spec.model_name}"',
        'backend: "python"',
        "max_batch_size: 0",
        "model_transaction_policy { decoupled: True }",
        *(_tensor("input", tensor, is_optional=True) for tensor in INPUTS),
        *(_tensor("output", tensor, is_optional=False) for tensor in OUTPUTS),
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
    ]
    if spec.target is Target.CONTAINER:
        lines.append(_parameter("engine", spec.engine_path or INCLUDED))
        lines.append(_parameter("python", spec.python))
        lines.append(_parameter("engine_options", shlex.join(spec.engine_options)))
    return "\n".join(lines) + "\n"


def _parameter(name: str, value: str) -> str:
    """Return one parameter's entry; protobuf's text form takes JSON's escapes."""
    text = json.dumps(value, ensure_ascii=False)
    return f'parameters {{ key: "{name}" value {{ string_value: {text} }} }}'


def _tensor(kind: str, tensor: TensorSpec, *, is_optional: bool) -> str:
    """Return one tensor's entry; every input is optional, since Triton only counts them."""
    size = "-1" if tensor.is_list else "1"
    dims = ", ".join([size] * tensor.rank)
    optional = " optional: true" if is_optional else ""
    return (
        f'{kind} [ {{ name: "{tensor.name}" data_type: TYPE_{tensor.type} '
        f"dims: [ {dims} ]{optional} }} ]"
    )
