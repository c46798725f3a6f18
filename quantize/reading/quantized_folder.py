"""A quantized checkpoint in either layout: what its configs say and where its tensors are."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotrt.engines.checkpoint.checkpoint import contradictions, tensor_refs
from nemotrt.engines.checkpoint.codes.packed import num_words
from nemotrt.engines.checkpoint.codes.spelling import spelled
from nemotrt.engines.checkpoint.quant_config import (
    QUANT_CONFIG_FILE,
    QuantConfig,
    flat_quantization,
    is_compressed,
    read_quant_config,
)
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.checkpoint.stored_head import settle_head
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.model.tensor_names import expected_shapes, linear_names
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.conversion.formats import CheckpointFormat


@dataclass(frozen=True, slots=True)
class QuantizedFolder:
    """The parts of a quantized checkpoint that the checks read."""

    path: Path
    model: ModelConfig
    layout: CheckpointFormat
    quant: QuantConfig
    tensors: dict[str, TensorRef]
    linears: list[str]
    contradictions: tuple[str, ...] = ()  # as of a Checkpoint
    group_sizes: frozenset[int] = frozenset()  # that config.json tells

    @property
    def precision(self) -> Precision:
        """How the linears are stored."""
        assert self.quant.precision is not None  # open_folder() refuses floats
        return self.quant.precision

    def spelled(self) -> dict[str, TensorRef]:
        """Return the tensors as ModelOpt's layout spells them, packed codes as codes."""
        is_plain = self.layout is CheckpointFormat.MODELOPT and not self.has_groups
        return self.tensors if is_plain else spelled(self.tensors)

    @property
    def has_groups(self) -> bool:
        """Whether some inputs of a row share a scale."""
        return self.precision.weights.is_grouped

    def excludes(self, module: str) -> bool:
        """Whether the config says that `module` is left alone; compressed-tensors has regexes."""
        names = self.quant.exclude
        if self.layout is CheckpointFormat.MODELOPT:
            return self.quant.excludes(module)
        if module in names:
            return True
        regexes = (name.removeprefix("re:") for name in names if name.startswith("re:"))
        try:
            return any(re.match(regex, module) for regex in regexes)
        except re.error as error:
            raise ArtefactError(
                f"{self.path}/config.json: ignore has a bad regex: {error}."
            ) from None

    def bits(self, module: str) -> int:
        """Return the bits of a module's codes; int8 may stand beside int4."""
        own, words = self.precision.weights.format.num_bits, self.codes(module)
        if words is None or words.dtype != "I32" or len(words.shape) != 2:
            return own
        columns = expected_shapes(self.model)[f"{module}.weight"][1]
        return 8 if words.shape[1] == num_words(columns, 8) else own

    def codes(self, module: str) -> TensorRef | None:
        """Return where the codes of `module` are, or None if it is not quantized."""
        for leaf in ("weight_packed", "weight"):
            ref = self.tensors.get(f"{module}.{leaf}")
            if ref is not None and not ref.is_float:
                return ref
        return None


def open_folder(path: Path) -> QuantizedFolder:
    """Return the quantized checkpoint in folder `path`, tensors as they are spelled there.

    Raises:
        ConfigError: it is not quantized, or in none of our formats.
        ArtefactError: a file is missing or damaged.
    """
    told = read_model_config(path)
    flat = flat_quantization(path) or {}
    if not flat and not (path / QUANT_CONFIG_FILE).is_file():
        raise ConfigError(f"{path} is not quantized: config.json has no quantization_config.")
    model, tensors = settle_head(told, dict(tensor_refs(path)))
    linears = [name.removesuffix(".weight") for name in linear_names(model)]
    is_modelopt = not is_compressed(path)
    layout = CheckpointFormat.MODELOPT if is_modelopt else CheckpointFormat.COMPRESSED_TENSORS
    quant = read_quant_config(path)
    if quant.precision is None:
        raise ConfigError(f"{path}: the configs name no algorithm for the linears.")
    found = contradictions(path, told, model)
    sizes = _group_sizes(flat)
    return QuantizedFolder(path, model, layout, quant, tensors, linears, found, sizes)


def _group_sizes(flat: dict[str, Any]) -> frozenset[int]:
    """Return the sizes of groups of inputs that share a scale; the config has been read before."""
    schemes = [group["weights"] for group in (flat.get("config_groups") or {}).values()] or [flat]
    return frozenset(scheme["group_size"] for scheme in schemes if scheme.get("group_size"))
