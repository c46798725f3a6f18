"""A model and what its files say of the formats that its numbers have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemotrt.engines.checkpoint.quant_config import QUANT_CONFIG_FILE
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import FLOATS, NumberFormat
from nemotrt.engines.model.tensor_names import expected_shapes, linear_names
from nemotrt.errors import ConfigError
from nemotrt.files.text_file import read_json_object
from nemotrt.profiles.planning.sources.quantization import (
    Quantization,
    flat_quantization,
    nested_quantization,
)
from nemotrt.profiles.planning.sources.stored_weights import StoredWeights, stored_weights

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
    quantization: Quantization | None = None
    weights: StoredWeights | None = None
    kv: NumberFormat | None = None
    ssm: NumberFormat | None = None


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
    found = _quantization(raw, source, folder)
    quantization = found if isinstance(found, Quantization) else None
    kv = found if isinstance(found, NumberFormat) else quantization.kv if quantization else None
    ssm = _float_type(raw, SSM_FIELD, source) if raw.get(SSM_FIELD) else None
    if folder and has_weights:
        from nemotrt.profiles.planning.sources.weight_files import read_weights  # heavy: numpy

        floats, weights = read_weights(folder, model, quantization)
    else:
        floats = _float_type(raw, "dtype" if raw.get("dtype") else "torch_dtype", source)
        weights = _by_config(model, quantization) if quantization else None
    return ModelSource(model, floats, quantization, weights, kv, ssm)


def _quantization(
    raw: dict[str, Any], source: str, folder: Path | None
) -> Quantization | NumberFormat | None:
    """Return what the configs say: of the KV cache alone, of the linears too, or nothing."""
    flat = raw.get("quantization_config") or raw.get("compression_config")
    if flat and not isinstance(flat, dict):
        raise ConfigError(f"{source}: quantization_config must be an object, got {flat!r}.")
    path = folder / QUANT_CONFIG_FILE if folder else None
    by_config = flat_quantization(flat, source) if flat else None
    if path is None or not path.is_file():
        return by_config
    nested = nested_quantization(read_json_object(path), str(path))
    if by_config is None:
        return nested
    if isinstance(nested, NumberFormat):
        return by_config
    if (nested.precision, nested.kv) != (by_config.precision, by_config.kv):
        raise ConfigError(
            f"{path} says {nested.title} with a {nested.kv} KV cache, but {source} says "
            f"{by_config.title} with {by_config.kv}; only one can be true."
        )
    return nested


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


def _by_config(model: ModelConfig, quantization: Quantization) -> StoredWeights:
    """Return the quantized weights by shapes and the config's exclusions."""
    shapes = expected_shapes(model)
    names = [n for n in linear_names(model) if not quantization.excludes(n[: -len(".weight")])]
    return stored_weights(model, {n: quantization.linear_bytes(shapes[n]) for n in names})
