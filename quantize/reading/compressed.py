"""A compressed-tensors checkpoint read as ModelOpt's layout spells the same codes and scales."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import (
    Checkpoint,
    check_shapes,
    open_checkpoint,
    tensor_refs,
)
from nemotrt.engines.checkpoint.quant_config import KV_WORDS, QuantConfig, flat_quantization
from nemotrt.engines.checkpoint.safetensors_file import TensorRef
from nemotrt.engines.checkpoint.stored_head import settle_head
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.model.numerics import QUANTIZED
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.conversion.formats import CheckpointFormat


@dataclass(frozen=True, slots=True)
class OffsetBinaryRef(TensorRef):
    """int8 codes stored as code + 128, four in an int32."""

    def map(self) -> npt.NDArray[Any]:
        """Return the codes, decoded into memory."""
        raw = TensorRef.map(self).view(np.uint8) ^ np.uint8(0x80)
        return raw.view(np.int8)


def open_quantized(folder: Path) -> Checkpoint:
    """Return the checkpoint in `folder`, quantized in either layout or not at all.

    Raises:
        ArtefactError: a file or tensor is missing, damaged or of a wrong shape.
        ConfigError: the model or how it is quantized is not supported.
    """
    flat = flat_quantization(folder)
    if not flat or flat.get("quant_method") != CheckpointFormat.COMPRESSED_TENSORS:
        return open_checkpoint(folder)
    tensors: dict[str, TensorRef] = {}
    for name, ref in tensor_refs(folder):
        tensors |= _modelopt_spelling(name, ref)
    config, tensors = settle_head(read_model_config(folder), tensors)
    checkpoint = Checkpoint(folder, config, tensors, read_compressed_config(folder, flat))
    check_shapes(checkpoint)
    return checkpoint


def read_compressed_config(folder: Path, flat: dict[str, Any]) -> QuantConfig:
    """Return what a compressed-tensors config says.

    Raises:
        ArtefactError: a key is missing or of another kind than it should be.
        ConfigError: it is none of the schemes that nemotrt has.
    """
    try:
        (group,) = flat["config_groups"].values()
        weights, inputs = group["weights"], group.get("input_activations")
        kv_scheme = flat.get("kv_cache_scheme")
        kv_algo = KV_WORDS.get(kv_scheme["type"]) if kv_scheme else None
        is_kv_plain = not kv_scheme or (
            kv_scheme["num_bits"] == 8 and kv_scheme.get("symmetric", True)
        )
        told = _scheme(weights) | {"dynamic": False}, _scheme(inputs) if inputs else None
        ignore = frozenset(map(str, flat.get("ignore") or ()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(
            f"{folder}/config.json: quantization_config is malformed: {error!r}."
        ) from None
    for precision in QUANTIZED.values():
        if is_kv_plain and (precision.weights.scheme, precision.inputs.scheme) == told:
            return QuantConfig(precision, kv_algo, ignore)
    raise ConfigError(
        f"{folder}/config.json: weights {weights} with input_activations {inputs} are none of "
        f"{', '.join(QUANTIZED)}."
    )


def _scheme(told: dict[str, Any]) -> dict[str, Any]:
    """Return what a config says of weights or inputs, as `Numbers.scheme` does."""
    return {
        "num_bits": told["num_bits"],
        "type": told["type"],
        "symmetric": bool(told.get("symmetric", True)),
        "strategy": told["strategy"],
        "dynamic": bool(told.get("dynamic")),
    }


def _modelopt_spelling(name: str, ref: TensorRef) -> dict[str, TensorRef]:
    """Return the tensor by ModelOpt's name and shape; packed codes by both names."""
    module, _, leaf = name.rpartition(".")
    if leaf == "weight_packed" and ref.dtype == "I32" and len(ref.shape) == 2:
        rows, columns = ref.shape
        codes = OffsetBinaryRef(ref.name, "I8", (rows, 4 * columns), *_place(ref))
        return {f"{module}.weight": codes, name: ref}
    if leaf in ("weight_scale", "input_scale"):
        shape = () if ref.shape == (1,) else (ref.shape[0],) if ref.shape[1:] == (1,) else ref.shape
        return {name: replace(ref, shape=shape)}
    if leaf in ("k_scale", "v_scale") and not module.endswith("_proj"):
        shape = () if ref.shape == (1,) else ref.shape
        return {f"{module}.{leaf[0]}_proj.{leaf}": replace(ref, shape=shape)}
    return {name: ref}


def _place(ref: TensorRef) -> tuple[Path, int, int]:
    return ref.path, ref.offset, ref.num_bytes
