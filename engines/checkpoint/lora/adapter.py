"""A LoRA adapter in a folder, each of its tensors matched with a linear of the base model."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.lora.config import CONFIG_FILE, AdapterConfig, read_adapter_config
from nemotrt.engines.checkpoint.lora.names import hub_weight, read_key, writers_module
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef, read_header
from nemotrt.engines.checkpoint.stored.tensor_digest import tensor_digests
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.tensor_names import expected_shapes, linear_names, model_names
from nemotrt.errors import ArtefactError, ConfigError

TENSOR_FILE = "adapter_model.safetensors"
PICKLES = ("adapter_model.bin", "adapter_model.pt")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
# What re-uploads add to a model's name when they store the same weights in another format.
FORMAT_WORDS = re.compile(
    r"(?i)[-_.](unsloth|bnb|[48]bits?|fp8|nvfp4|fp4|gptq|awq|int[48]|w[48]a(8|16)|gguf|bf16|dynamic)"
)
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LowRank:
    """What an adapter adds to one weight [out, in]: scale * up [out, rank] x down [rank, in].

    `magnitude` [out] is DoRA's: each row of the sum is brought to that length.
    """

    down: TensorRef
    up: TensorRef
    scale: float
    magnitude: TensorRef | None = None

    @property
    def rank(self) -> int:
        """The inner width of the product."""
        return self.down.shape[0]

    @property
    def refs(self) -> tuple[TensorRef, ...]:
        """Its tensors."""
        return (self.down, self.up, *([self.magnitude] if self.magnitude else []))

    def change(self, rows: slice) -> Floats:
        """Return rows of the product with its scale, float32."""
        up = floats(self.up, rows) * np.float32(self.scale)
        return np.asarray(up @ floats(self.down), np.float32)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter for one model, by the hub's names of the weights that it changes."""

    path: Path
    config: AdapterConfig
    weights: Mapping[str, LowRank]

    @property
    def has_magnitudes(self) -> bool:
        """Whether it is a DoRA."""
        return any(own.magnitude for own in self.weights.values())

    @property
    def num_bytes(self) -> int:
        """Bytes of its tensors in float32."""
        sizes = (np.prod(ref.shape) for own in self.weights.values() for ref in own.refs)
        return 4 * int(sum(sizes))

    def digest(self) -> str:
        """Return a digest of all that it does."""
        found = hashlib.sha256(self.config.model_dump_json().encode())
        refs = [ref for _, own in sorted(self.weights.items()) for ref in own.refs]
        for ref, digest in zip(refs, tensor_digests(refs), strict=True):
            found.update(f"{ref.name} {ref.dtype} {ref.shape} {digest}\n".encode())
        return found.hexdigest()


def floats(ref: TensorRef, rows: slice = slice(None)) -> Floats:
    """Return rows of an adapter's tensor as float32; ArtefactError for NaN and infinity."""
    values = ref.rows(rows).astype(np.float32)
    if not np.isfinite(values).all():
        raise ArtefactError(f"{ref.path}: tensor {ref.name} holds NaN or infinity.")
    return values


def open_adapter(folder: Path, config: ModelConfig, base: str | None = None) -> Adapter:
    """Return the adapter in `folder` for a model; nothing but headers is read.

    Args:
        folder: what PEFT's save_pretrained wrote.
        config: the base model's.
        base: the base model's OWNER/NAME, if it is known.

    Raises:
        ArtefactError: a file is missing or damaged.
        ConfigError: it asks for what isn't supported, or is of another base model.
    """
    settings = read_adapter_config(folder)
    _check_base(folder, settings.base_model_name_or_path, base)
    if not (folder / TENSOR_FILE).is_file():
        if found := next((name for name in PICKLES if (folder / name).is_file()), None):
            raise ConfigError(
                f"{folder / found} is a pickle, which can run code as it is read; save the adapter "
                "with safe_serialization=True."
            )
        raise ArtefactError(f"{folder} has no {TENSOR_FILE}.")
    refs, _ = read_header(folder / TENSOR_FILE)
    modules: dict[str, dict[str, TensorRef]] = {}
    for name, ref in refs.items():
        key = read_key(name)
        if key is None:
            raise ConfigError(f"{ref.path}: tensor {name} is not supported; {_why_not(name)}.")
        if key.part in modules.setdefault(key.module, {}):
            raise ConfigError(f"{ref.path}: {key.module} has {key.part} twice.")
        modules[key.module][key.part] = ref
    if not modules:
        raise ConfigError(f"{folder / TENSOR_FILE} has no tensors.")
    shapes = _linears(config)
    weights = {}
    for module, parts in modules.items():
        name = hub_weight(module, config)
        if name not in shapes:
            raise ConfigError(f"{folder}: it adapts {module}; {_no_linear(module, name, config)}.")
        if not settings.targets(module, is_head=name == "lm_head.weight"):
            raise ConfigError(
                f"{folder}: it has tensors of {module}, which target_modules in {CONFIG_FILE} does "
                "not name: the two files are of different adapters."
            )
        weights[name] = _low_rank(folder, module, parts, shapes[name], settings)
    _check_complete(folder, settings, weights, next(iter(modules)), config)
    return Adapter(folder, settings, weights)


def _linears(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the weights that may be adapted; of experts, each has its own."""
    shapes, head = expected_shapes(config), model_names(config).lm_head
    names = [*linear_names(config), *([] if config.tie_word_embeddings else [head])]
    return {name: shapes[name] for name in names}


def _low_rank(
    folder: Path,
    module: str,
    parts: Mapping[str, TensorRef],
    shape: tuple[int, ...],
    settings: AdapterConfig,
) -> LowRank:
    """Return a module's change, its shapes checked."""
    rank, (rows, columns) = settings.rank(module), shape
    wanted: dict[str, tuple[int, ...]] = {"lora_A": (rank, columns), "lora_B": (rows, rank)}
    if settings.use_dora:
        wanted["lora_magnitude_vector"] = (rows,)
    for part, size in wanted.items():
        ref = parts.get(part)
        if ref is None:
            raise ConfigError(f"{folder}: {module} has no {part}.")
        if ref.shape != size or not ref.is_float:
            raise ConfigError(
                f"{folder}: {part} of {module} is {ref.dtype} {list(ref.shape)}; a rank of {rank} "
                f"and the base model's [{rows}, {columns}] need floats {list(size)}: it is for "
                "another base model, or its config is another adapter's."
            )
    if extra := parts.keys() - wanted.keys():
        raise ConfigError(f"{folder}: {module} has {min(extra)}, but use_dora is false.")
    magnitude = parts.get("lora_magnitude_vector")
    return LowRank(parts["lora_A"], parts["lora_B"], settings.scale(module), magnitude)


def _check_complete(
    folder: Path,
    settings: AdapterConfig,
    weights: Iterable[str],
    like: str,
    config: ModelConfig,
) -> None:
    """Raise ConfigError where the config names linears of the base that have no tensors."""
    lacking = [
        module
        for name in _linears(config)
        if ".experts." not in name
        and name not in weights
        and settings.targets(
            module := writers_module(name, like, config), is_head=name == "lm_head.weight"
        )
    ]
    if lacking:
        raise ConfigError(
            f"{folder}: target_modules names {len(lacking)} linears of the base model that have no "
            f"tensors, the first {lacking[0]}: it is for another base model, or not whole."
        )


def _check_base(folder: Path, told: str | None, base: str | None) -> None:
    """Raise ConfigError where both models have names on the hub, of different models."""
    if not (told and base and HUB_ID.fullmatch(told)) or Path(told).exists():
        return
    names = {FORMAT_WORDS.sub("", one.partition("/")[2]).lower() for one in (told, base)}
    if len(names) > 1:
        raise ConfigError(
            f"{folder} is an adapter for {told}, and the base model is {base}. If they are the "
            f"same weights, say so: put {base} as base_model_name_or_path into its {CONFIG_FILE}."
        )


def _why_not(name: str) -> str:
    if "lora_embedding" in name:
        return "adapters of embeddings are not"
    if ".base_layer." in name:
        return "it is a copy of the base model's; save the adapter with save_embedding_layers=False"
    if ".lora_" in name:
        return "of a linear's adapter lora_A, lora_B and lora_magnitude_vector are"
    return "it replaces a whole tensor, which is no low-rank change"


def _no_linear(module: str, name: str, config: ModelConfig) -> str:
    """Return why a module of a writer is none of the base model's linears."""
    leaf = module.rpartition(".")[2]
    if leaf == "lm_head":
        return "the base model's head is its embeddings (tie_word_embeddings)"
    if name in expected_shapes(config) or leaf in ("conv1d", "gate", "embeddings", "embed_tokens"):
        return f"adapters of linears are supported, and {leaf} is none of them"
    return "the base model has no such linear: it is for another base model"
