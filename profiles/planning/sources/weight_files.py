"""The weights of a checkpoint folder as its safetensors files have them; no weight is read."""

import math
from collections.abc import Mapping
from pathlib import Path

from nemotrt.engines.checkpoint.checkpoint import tensor_refs
from nemotrt.engines.checkpoint.quantized.decoded import DecodedRef
from nemotrt.engines.checkpoint.quantized.linears import CODE_LEAVES
from nemotrt.engines.checkpoint.quantized.scheme import QuantConfig, Scheme
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import FLOATS, NumberFormat
from nemotrt.engines.model.tensor_names import expected_shapes, linear_names, model_names
from nemotrt.errors import ConfigError
from nemotrt.profiles.planning.sources.stored_weights import StoredWeights, stored_weights

FLOAT_DTYPES = {item.safetensors: item for item in FLOATS}
PACKED_DTYPES = ("I32", "U8")  # of integers, some in one
MAX_PADDING = 0.1  # of the codes, where packing fills up words; the nearest widths are a factor 2


def read_weights(
    folder: Path, model: ModelConfig, quantization: Scheme | None, quant: QuantConfig | None = None
) -> tuple[NumberFormat, StoredWeights | None]:
    """Return the type of what is not quantized, and the quantized weights, if there are any.

    `quant` tells the schemes of single modules, where there are several.

    Raises:
        ArtefactError: a file is missing or damaged.
        ConfigError: the files and what the configs say of the quantization don't agree.
    """
    tensors = dict(tensor_refs(folder))
    embeddings = tensors.get(model_names(model).embeddings)  # floats in every layout
    is_plain = embeddings and not isinstance(embeddings, DecodedRef)
    floats = FLOAT_DTYPES.get(embeddings.dtype) if embeddings and is_plain else None
    return floats or NumberFormat.BF16, _by_files(
        model, quantization, quant or QuantConfig(), tensors, str(folder)
    )


def _by_files(
    model: ModelConfig,
    quantization: Scheme | None,
    quant: QuantConfig,
    tensors: Mapping[str, TensorRef],
    source: str,
) -> StoredWeights | None:
    """Return the quantized weights as the files have them, checked against what the config says.

    Raises:
        ConfigError: codes of which no config speaks, a module that the model has not, or codes of
            another width than the config says.
    """
    codes = {}
    for name, ref in tensors.items():
        module, _, leaf = name.rpartition(".")
        if leaf in CODE_LEAVES and _holds_codes(ref):
            codes[module] = ref
    codes.pop(model_names(model).embeddings.removesuffix(".weight"), None)  # read as floats
    if quantization is None:
        if codes:
            raise ConfigError(
                f"{source}: {next(iter(codes))} holds codes ({len(codes)} modules do), but no "
                "config says how they are quantized."
            )
        return None
    if not codes:
        raise ConfigError(f"{source} says {quantization.title}, but no tensor holds codes.")
    shapes = expected_shapes(model)
    known = {*linear_names(model), model_names(model).lm_head}
    for module, ref in codes.items():
        if f"{module}.weight" not in known:
            raise ConfigError(
                f"{source}: {module} is quantized, which is no linear that the planner knows in a "
                f"{model.model_type}; plan its config without the weights."
            )
        if isinstance(ref, DecodedRef):  # the file's own types
            continue
        _check_codes(
            quant.scheme_of(module) or quantization, ref, shapes[f"{module}.weight"], source
        )
    num_bytes = dict.fromkeys((f"{module}.weight" for module in codes), 0)
    for name, ref in tensors.items():
        weight = f"{name.rpartition('.')[0]}.weight"
        if weight in num_bytes:
            num_bytes[weight] += ref.num_bytes
    return stored_weights(model, num_bytes)


def _holds_codes(ref: TensorRef) -> bool:
    """Whether a tensor is codes, though it may be read as floats."""
    return not all(part.is_float for part in ref.parts)


def _check_codes(quantization: Scheme, ref: TensorRef, shape: tuple[int, ...], source: str) -> None:
    """Raise ConfigError unless codes have the type and the width that the config says."""
    stored = quantization.precision.weights.format
    is_packed = stored.kind == "int" or not stored.safetensors
    dtypes = {stored.safetensors, *(PACKED_DTYPES if is_packed else ())}
    wanted = math.prod(shape) * quantization.num_bits / 8
    is_off = abs(ref.num_bytes - wanted) > MAX_PADDING * wanted
    if ref.dtype not in dtypes or is_off:
        raise ConfigError(
            f"{source} says {quantization.title}, but {ref.name} has {ref.num_bytes} bytes of "
            f"{ref.dtype}; {list(shape)} in {stored} has {wanted:.0f}."
        )
