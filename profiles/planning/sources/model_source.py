"""A model and what its files say of the formats that its numbers have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotrt.engines.checkpoint.quantized.config import (
    QUANT_CONFIG_FILE,
    flat_config,
    flat_of,
    nested_config,
)
from nemotrt.engines.checkpoint.quantized.scheme import QuantConfig, Scheme
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import FLOATS, NumberFormat
from nemotrt.engines.model.tensor_names import expected_shapes, linear_names
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.files.text_file import read_json_object
from nemotrt.profiles.planning.sources.stored_weights import StoredWeights, stored_weights
from nemotrt.profiles.planning.sources.windows import Windows, windows_of

SSM_FIELD = "mamba_ssm_cache_dtype"
FLOAT_TYPES = {item.word: item for item in FLOATS}


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model, and what a name, a config.json or a checkpoint folder says of its formats.

    `weights` is there for a quantized model alone. `kv` and `ssm` are None where nothing is said,
    which leaves them to the engine.
    """

    model: ModelConfig
    floats: NumberFormat = NumberFormat.BF16
    quantization: Scheme | None = None
    weights: StoredWeights | None = None
    kv: NumberFormat | None = None
    ssm: NumberFormat | None = None
    windows: Windows | None = None


def read_source(
    raw: dict[str, Any], model: ModelConfig, config: Path | str, *, has_weights: bool = False
) -> ModelSource:
    """Return the source that the config dictionary `raw` describes.

    Args:
        raw: of a config.json.
        model: what it describes.
        config: where it came from; the files beside a config.json say more than it does.
        has_weights: whether the weights are beside it, to be read too.

    Raises:
        ArtefactError: a file beside it is damaged.
        ConfigError: the quantization or a type is one that the planner does not know.
    """
    source = str(config)
    folder = config.parent if isinstance(config, Path) and config.name == "config.json" else None
    quant = _quantization(raw, source, folder)
    try:
        scheme, kv = quant.scheme, quant.kv if quant.layout else None
    except ConfigError as error:
        raise ConfigError(f"{source}: {error.message}") from None
    ssm = _float_type(raw, SSM_FIELD, source) if raw.get(SSM_FIELD) else None
    if folder and has_weights:
        from nemotrt.profiles.planning.sources.weight_files import read_weights  # heavy: numpy

        floats, weights = read_weights(folder, model, scheme, quant)
    else:
        floats = _float_type(raw, "dtype" if raw.get("dtype") else "torch_dtype", source)
        weights = _by_config(model, quant, scheme) if scheme else None
    windows = windows_of(raw, model.num_attention_layers, source)
    return ModelSource(model, floats, scheme, weights, kv, ssm, windows)


def _quantization(raw: dict[str, Any], source: str, folder: Path | None) -> QuantConfig:
    """Return what the configs say, which must be the same where two say something."""
    path = folder / QUANT_CONFIG_FILE if folder else None
    try:
        flat = flat_of(raw, source)
        told = flat_config(flat, source) if flat else QuantConfig()
        if path is None or not path.is_file():
            return told
        nested = nested_config(read_json_object(path), str(path))
    except ArtefactError as error:  # a plan has nothing else to go by
        raise ConfigError(error.message) from None
    if not told.schemes or not nested.schemes:
        return told if told.schemes else nested
    if (_precisions(nested), nested.kv) != (_precisions(told), told.kv):
        raise ConfigError(
            f"{path} says {nested.title} with a {nested.kv} KV cache, but {source} says "
            f"{told.title} with {told.kv}; only one can be true."
        )
    return nested


def _precisions(quant: QuantConfig) -> set[str]:
    return {scheme.precision for _, scheme in quant.schemes}


def _float_type(raw: dict[str, Any], name: str, source: str) -> NumberFormat:
    """Return a float type by its name in config.json; bfloat16 where there is none, or "auto"."""
    value = raw.get(name)
    if value is None or value == "auto":
        return NumberFormat.BF16
    known = FLOAT_TYPES.get(str(value).removeprefix("torch."))
    if known is None:
        raise ConfigError(
            f"{source}: {name} {value!r} is not a type that the planner knows; it knows "
            f"{', '.join(FLOAT_TYPES)}."
        )
    return known


def _by_config(model: ModelConfig, quant: QuantConfig, scheme: Scheme) -> StoredWeights:
    """Return the quantized weights by shapes and the config's exclusions."""
    shapes = expected_shapes(model)
    names = [name for name in linear_names(model) if not quant.excludes(name[: -len(".weight")])]
    found = {name: quant.scheme_of(name.removesuffix(".weight")) or scheme for name in names}
    return stored_weights(
        model, {name: own.linear_bytes(shapes[name]) for name, own in found.items()}
    )
