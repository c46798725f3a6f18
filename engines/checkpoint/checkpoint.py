"""A Hugging Face folder as a set of named tensors, opened lazily and checked against its config."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.gguf.file import SUFFIX, read_gguf
from nemotrt.engines.checkpoint.gguf.folder import lone_gguf
from nemotrt.engines.checkpoint.gguf.tensors import hub_tensors
from nemotrt.engines.checkpoint.quantized.config import read_quant_config
from nemotrt.engines.checkpoint.quantized.decoded import DecodedRef
from nemotrt.engines.checkpoint.quantized.scheme import QuantConfig
from nemotrt.engines.checkpoint.quantized.spelling import spelled
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef, read_header
from nemotrt.engines.checkpoint.stored_head import HEAD, settle_head
from nemotrt.engines.checkpoint.stored_names import left_out, left_out_note, missing_message
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.tensor_names import expected_shapes
from nemotrt.errors import ArtefactError
from nemotrt.files.text_file import GET_AGAIN, read_json_object

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
LANGUAGE_PREFIX = "language_model."  # of the language model in one that also sees images
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
    contradictions: tuple[str, ...] = ()  # of the folder's files, and which of them holds
    merged: tuple[str, ...] = ()  # adapters in the weights: name, weight and digest of each

    def __getitem__(self, name: str) -> TensorRef:
        """Return where tensor `name` lies."""
        try:
            return self.tensors[name]
        except KeyError:
            message = missing_message(name, self.tensors)
            raise ArtefactError(f"{self.path}: {message}") from None

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
        values = ref.rows(rows).astype(np.float32)
        bad = int(values.size - np.count_nonzero(np.isfinite(values)))
        if bad:
            raise ArtefactError(
                f"{ref.path}: tensor {name} holds {bad} NaN or infinite values of {values.size}."
            )
        return values

    def notes(self, fate: str = "left out") -> tuple[str, ...]:
        """Return what a user should know of the folder, a line each.

        `fate` says what becomes of the tensors that are no part of the model.
        """
        fate = "left out" if self.sees_images else fate
        found = (self._decoded_note(), left_out_note(self._left_out(), fate), self._merged_note())
        return (*self.contradictions, *filter(None, found))

    def _decoded_note(self) -> str | None:
        """What to say of codes that are read as floats."""
        if not self.quant.schemes:
            return None
        if self.quant.precision is None:
            inputs = "; their inputs, which engines of its own round too, stay floats"
            told = f"{self.quant.title}: its linears are read as floats, dequantized"
            return told + inputs * self.quant.leaves_inputs
        count = sum(isinstance(ref, DecodedRef) for ref in self.tensors.values())
        told = f"{self.quant.title}: {count} of its linears are read as floats, dequantized"
        return told if count else None

    def _merged_note(self) -> str | None:
        """What to say of adapters in the weights."""
        each = (told.rsplit(" ", 2) for told in self.merged)
        names = [name if weight == "1" else f"{name} ({weight})" for name, weight, _ in each]
        return f"merged into the weights: {', '.join(names)}" if names else None

    @property
    def sees_images(self) -> bool:
        """Whether it is a model that also sees images, of which the language model is read."""
        return any(ref.name.startswith(LANGUAGE_PREFIX) for ref in self.tensors.values())

    def carried(self) -> dict[str, TensorRef]:
        """Return the tensors that a quantized copy has: all, but without what sees images."""
        if not self.sees_images:
            return self.tensors
        return {name: self.tensors[name] for name in self.used_names()}

    def used_names(self) -> list[str]:
        """Return the names of the tensors that are part of the model, with their scales."""
        return sorted(self.tensors.keys() - self._left_out())

    def _left_out(self) -> list[str]:
        return left_out(self.tensors, {*expected_shapes(self.config), HEAD})

    def fingerprint(self) -> str:
        """Return a digest of config.json and of every tensor's name, type, shape and place.

        It identifies the checkpoint without reading the weights, so it does not detect a changed
        weight in a file of the same layout.
        """
        digest = hashlib.sha256((self.path / "config.json").read_bytes())
        for name, ref in sorted(self.tensors.items()):
            entry = (name, ref.dtype, ref.shape, ref.path.name, ref.offset)
            digest.update(repr(entry).encode())
        for told in self.merged:
            digest.update(repr(told.rsplit(" ", 2)[1:]).encode())  # an adapter's name is no part
        return digest.hexdigest()


def open_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in folder `path`, with every tensor's name, type and shape checked.

    Raises:
        ArtefactError: a shard is missing or damaged, or a tensor is missing or has a wrong shape.
        ConfigError: config.json describes a model that is not supported.
    """
    told, quant = read_model_config(path), read_quant_config(path)
    config, tensors = settle_head(told, spelled(tensor_refs(path), quant))
    checkpoint = Checkpoint(path, config, tensors, quant, contradictions(path, told, config))
    check_shapes(checkpoint)
    return checkpoint


def shards_if_there(path: Path) -> list[Path]:
    """Return the files of weights of the folder `path`, none where it has none."""
    has_weights = (path / SINGLE_FILE).is_file() or (path / INDEX_FILE).is_file()
    return shard_paths(path) if has_weights or lone_gguf(path) else []


def with_stored_head(path: Path, config: ModelConfig) -> ModelConfig:
    """Return the config with the head that folder `path` stores; a folder may have no weights."""
    if not (config.tie_word_embeddings and shards_if_there(path)):
        return config
    return settle_head(config, dict(tensor_refs(path)))[0]


def contradictions(path: Path, told: ModelConfig, config: ModelConfig) -> tuple[str, ...]:
    """Return what contradicts itself in a folder, a line each, and what is taken.

    `told` is what its config.json says, `config` what its tensors are.
    """
    found = []
    has_both = (path / SINGLE_FILE).is_file() and (path / INDEX_FILE).is_file()
    if has_both and set(weight_map(path).values()) != {SINGLE_FILE}:
        found.append(
            f"{SINGLE_FILE} is read, as in transformers; {INDEX_FILE} beside it names other files "
            "and is not: remove what is stale"
        )
    if told.tie_word_embeddings and not config.tie_word_embeddings:
        found.append(
            f"config.json ties the head to the embeddings, but {HEAD} is stored and differs: it "
            "is the head, as in transformers"
        )
    return tuple(found)


def shard_paths(path: Path) -> list[Path]:
    """Return the safetensors files of the checkpoint folder `path`, in order, or its GGUF file.

    A single file goes before an index, as in transformers.

    Raises:
        ArtefactError: there are none, or the index is malformed or names a missing file.
    """
    if (path / SINGLE_FILE).is_file():
        return [path / SINGLE_FILE]
    if not (path / INDEX_FILE).is_file():
        if found := lone_gguf(path):
            return [found]
        raise ArtefactError(f"{path} has neither {SINGLE_FILE} nor {INDEX_FILE}; {GET_AGAIN}.")
    names = sorted(set(weight_map(path).values()))
    for name in names:
        if not (path / name).is_file():
            raise ArtefactError(
                f"{path}: shard {name} is missing, which {INDEX_FILE} names; {GET_AGAIN}."
            )
    return [path / name for name in names]


def weight_map(path: Path) -> dict[str, str]:
    """Return the index's map from a tensor's name to its shard."""
    index = path / INDEX_FILE
    try:
        names = dict(read_json_object(index)["weight_map"].items())
    except (ArtefactError, KeyError, AttributeError) as error:
        raise ArtefactError(f"{index} is malformed: {error}.") from error
    for name in names.values():
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise ArtefactError(
                f"{index} names the shard {name!r}, which is not a plain file name."
            )
    return names


def tensor_refs(path: Path) -> Iterator[tuple[str, TensorRef]]:
    """Yield each tensor of each shard by its hub name; a name in two shards is an error."""
    seen: dict[str, Path] = {}
    for shard in shard_paths(path):
        for stored, ref in _stored_tensors(shard):
            name = hub_name(stored)
            if name in seen:
                raise ArtefactError(
                    f"{path}: tensor {name} is in both {seen[name].name} and {shard.name}, and "
                    "loaders take one or the other. Leave the file that was laid over the "
                    "checkpoint out of its index, or merge the two: "
                    "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW)."
                )
            seen[name] = shard
            yield name, ref


def hub_name(stored: str) -> str:
    """Return the hub's name of a tensor, without the prefix that a model with images gives it."""
    name = stored.removeprefix(LANGUAGE_PREFIX)
    return ALIASES.get(name, name)


def _stored_tensors(shard: Path) -> Iterable[tuple[str, TensorRef]]:
    """Return each tensor of a file of weights by its name on the hub."""
    if shard.suffix == SUFFIX:
        return hub_tensors(read_gguf(shard))
    return read_header(shard)[0].items()


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
