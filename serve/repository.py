"""Writes the model repository that tritonserver loads; the same inputs give the same bytes."""

from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile

from nemotrt.engines.artefact import writing_folder
from nemotrt.engines.manifest import read_manifest
from nemotrt.errors import ConfigError
from nemotrt.serve.triton_model.tensors import INPUTS, OUTPUTS, TensorSpec

MODEL_FOLDER = Path(__file__).parent / "triton_model"
DEFAULT_NAME = "llm"


@dataclass(frozen=True, slots=True)
class RepositorySpec:
    """What a repository is to hold."""

    model_name: str = DEFAULT_NAME
    engine_socket: str | None = None  # None: the environment of the server says where

    def __post_init__(self) -> None:
        """Check that the name can be a folder and part of an address."""
        if not self.model_name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ConfigError(
                f"model name {self.model_name!r} may have letters, digits, '-', '_' and '.'."
            )


def write_repository(engine: Path, target: Path, spec: RepositorySpec, *, force: bool) -> None:
    """Write the repository for the engine directory `engine` to `target`.

    Raises:
        ArtefactError: `engine` is no engine directory.
        ConfigError: `target` exists and `force` is false.
    """
    read_manifest(engine)
    with writing_folder(target, force=force) as partial:
        model = partial / spec.model_name
        version = model / "1"
        version.mkdir(parents=True)
        (model / "config.pbtxt").write_text(model_config(spec), encoding="utf-8")
        for source in sorted(MODEL_FOLDER.glob("*.py")):
            copyfile(source, version / source.name)


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
    if spec.engine_socket is not None:
        value = f'value: {{ string_value: "{spec.engine_socket}" }}'
        lines.append(f'parameters {{ key: "engine_socket" {value} }}')
    return "\n".join(lines) + "\n"


def _tensor(kind: str, tensor: TensorSpec, *, is_optional: bool) -> str:
    """Return one tensor's entry; every input is optional, since Triton only counts them."""
    size = "-1" if tensor.is_list else "1"
    dims = ", ".join([size] * tensor.rank)
    optional = " optional: true" if is_optional else ""
    return (
        f'{kind} [ {{ name: "{tensor.name}" data_type: TYPE_{tensor.type} '
        f"dims: [ {dims} ]{optional} }} ]"
    )
