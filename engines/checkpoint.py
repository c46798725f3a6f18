"""A Hugging Face folder as a set of named tensors, opened lazily and checked against its config."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.hf_config import read_model_config
from nemotrt.engines.model_config import ModelConfig
from nemotrt.engines.quant_config import QuantConfig, read_quant_config
from nemotrt.engines.safetensors_file import TensorRef, read_header
from nemotrt.engines.tensor_names import expected_shapes
from nemotrt.errors import ArtefactError

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
ALL = slice(None)
# Some transformers versions (<= 5.15) save the embedding under another name than the hub's.
ALIASES = {"backbone.embedding.weight": "backbone.embeddings.weight"}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint folder: config, tensors by hub name, and how the linears are quantized."""

    path: Path
    config: ModelConfig
    tensors: dict[str, TensorRef]
    quant: QuantConfig = field(default_factory=QuantConfig)

    def __getitem__(self, name: str) -> TensorRef:
        """Return where tensor `name` lies."""
        try:
            return self.tensors[name]
        except KeyError:
            raise ArtefactError(f"{self.path}: tensor {name} is missing.") from None

    def __contains__(self, name: str) -> bool:
        """Whether the checkpoint has tensor `name`."""
        return name in self.tensors

    def floats(self, name: str, rows: slice = ALL) -> npt.NDArray[np.float32]:
        """Return tensor `name`, or some of its rows, as float32: exact for bfloat16 and float16.

        Raises:
            ArtefactError: the tensor is missing, not floating point, or holds NaN or infinity.
        """
        ref = self[name]
        if not ref.is_float:
            raise ArtefactError(f"{ref.path}: tensor {name} is {ref.dtype}, expected a float.")
        values = (ref.map()[rows] if ref.shape else ref.map()).astype(np.float32)
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        if bad:
            raise ArtefactError(
                f"{ref.path}: tensor {name} holds {bad} NaN or infinite values of {values.size}."
            )
        return values

    def fingerprint(self) -> str:
        """Return a digest of config.json and of every tensor's name, type, shape and place.

        It identifies the checkpoint without reading the weights, so it does not detect a changed
        weight in a file of the same layout.
        """
        digest = hashlib.sha256((self.path / "config.json").read_bytes())
        for name, ref in sorted(self.tensors.items()):
            entry = (name, ref.dtype, ref.shape, ref.path.name, ref.offset)
            digest.update(repr(entry).encode())
        return digest.hexdigest()


def open_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in folder `path`, with every tensor's name, type and shape checked.

    Raises:
        ArtefactError: a shard is missing or damaged, or a tensor is missing or has a wrong shape.
        ConfigError: config.json describes a model that is not supported.
    """
    config = read_model_config(path)
    quant = read_quant_config(path)
    tensors = {ALIASES.get(name, name): ref for name, ref in tensor_refs(path)}
    checkpoint = Checkpoint(path, config, tensors, quant)
    check_shapes(checkpoint)
    return checkpoint


def shard_paths(path: Path) -> list[Path]:
    """Return the safetensors files of the checkpoint folder `path`, in order.

    Raises:
        ArtefactError: there are none, or the index is malformed or names a missing file.
    """
    index = path / INDEX_FILE
    if not index.is_file():
        if not (path / SINGLE_FILE).is_file():
            raise ArtefactError(f"{path} has neither {SINGLE_FILE} nor {INDEX_FILE}.")
        return [path / SINGLE_FILE]
    try:
        names: Any = sorted(
            set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(f"{index} is malformed: {error}.") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise ArtefactError(
                f"{index} names the shard {name!r}, which is not a plain file name."
            )
        if not (path / name).is_file():
            raise ArtefactError(f"{path}: shard {name} is missing; {INDEX_FILE} names it.")
    return [path / name for name in names]


def tensor_refs(path: Path) -> Iterator[tuple[str, TensorRef]]:
    """Yield each tensor of each shard; a name in two shards is an error."""
    seen: dict[str, Path] = {}
    for shard in shard_paths(path):
        for name, ref in read_header(shard)[0].items():
            if name in seen:
                raise ArtefactError(f"tensor {name} is in both {seen[name].name} and {shard.name}.")
            seen[name] = shard
            yield name, ref


def check_shapes(checkpoint: Checkpoint) -> None:
    """Raise ArtefactError unless each tensor that the config implies is there, with its shape."""
    for name, shape in expected_shapes(checkpoint.config).items():
        ref = checkpoint[name]
        if ref.shape != shape:
            raise ArtefactError(
                f"{ref.path}: tensor {name} has shape {list(ref.shape)}, "
                f"config.json implies {list(shape)}."
            )
        if not ref.is_float and f"{name}_scale" not in checkpoint:
            raise ArtefactError(
                f"{ref.path}: tensor {name} is {ref.dtype} but has no {name}_scale."
            )
