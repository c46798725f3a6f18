"""A quantized checkpoint of ours: what its configs say and where its tensors are."""

from dataclasses import dataclass
from pathlib import Path

from nemotrt.engines.checkpoint.checkpoint import contradictions, tensor_refs
from nemotrt.engines.checkpoint.quantized.config import read_quant_config
from nemotrt.engines.checkpoint.quantized.scheme import QuantConfig
from nemotrt.engines.checkpoint.quantized.spelling import spelled
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.checkpoint.stored_head import settle_head
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.model.tensor_names import linear_names
from nemotrt.errors import ConfigError
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

    @property
    def precision(self) -> Precision:
        """How the linears are stored."""
        assert self.quant.precision is not None  # open_folder() refuses floats
        return self.quant.precision

    def spelled(self) -> dict[str, TensorRef]:
        """Return the tensors as ModelOpt's layout spells them, packed codes as codes."""
        is_plain = self.layout is CheckpointFormat.MODELOPT and not self.has_groups
        return self.tensors if is_plain else spelled(self.tensors.items(), self.quant)

    @property
    def has_groups(self) -> bool:
        """Whether some inputs of a row share a scale."""
        return self.precision.weights.is_grouped

    def excludes(self, module: str) -> bool:
        """Whether the config says that `module` is left alone."""
        return self.quant.excludes(module)

    def bits(self, module: str) -> int:
        """Return the bits of a module's codes; int8 may stand beside int4."""
        scheme = self.quant.scheme_of(module)
        return scheme.num_bits if scheme else self.precision.weights.format.num_bits

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
    told, quant = read_model_config(path), read_quant_config(path)
    if quant.layout is None:
        raise ConfigError(f"{path} is not quantized: config.json has no quantization_config.")
    model, tensors = settle_head(told, dict(tensor_refs(path)))
    linears = [name.removesuffix(".weight") for name in linear_names(model)]
    if quant.precision is None:
        raise ConfigError(f"{path}: the configs name no algorithm for the linears.")
    found = contradictions(path, told, model)
    layout = CheckpointFormat(quant.layout)
    return QuantizedFolder(path, model, layout, quant, tensors, linears, found)
