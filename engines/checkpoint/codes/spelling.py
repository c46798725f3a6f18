"""Quantized tensors by one spelling: the names and shapes of ModelOpt's layout, codes as codes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nemotrt.engines.checkpoint.codes.packed import WORD_BITS, num_words, packed_ref, paired_ref
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.model.numerics import QUANTIZED, Precision
from nemotrt.errors import ArtefactError


def spelled(tensors: Mapping[str, TensorRef]) -> dict[str, TensorRef]:
    """Return a quantized checkpoint's tensors; codes that share words by the weight's name.

    Raises:
        ArtefactError: a weight_shape is missing, or is none of its codes.
    """
    found: dict[str, TensorRef] = {}
    for name, ref in tensors.items():
        module, _, leaf = name.rpartition(".")
        if leaf == "weight_packed":
            found[f"{module}.weight"] = _packed(module, ref, tensors)
        elif leaf == "weight" and ref.dtype == "U8" and len(ref.shape) == 2:
            found[name] = paired_ref(ref)
        elif leaf in ("weight_scale", "input_scale"):
            found[name] = replace(ref, shape=_scale_shape(ref.shape))
        elif leaf in ("k_scale", "v_scale") and not module.endswith("_proj"):
            shape = () if ref.shape == (1,) else ref.shape
            found[f"{module}.{leaf[0]}_proj.{leaf}"] = replace(ref, shape=shape)
        elif leaf != "weight_shape" or f"{module}.weight_packed" not in tensors:
            found[name] = ref
    return found


def _packed(module: str, words: TensorRef, tensors: Mapping[str, TensorRef]) -> TensorRef:
    """Return the codes [out, in] of packed int32; their bits follow from the two shapes."""
    told = tensors.get(f"{module}.weight_shape")
    shape = tuple(told.map().tolist()) if told is not None and told.shape == (2,) else None
    if shape is not None and words.dtype == "I32" and len(words.shape) == 2:
        for bits in (4, 8):
            if words.shape == (shape[0], num_words(shape[1], bits)):
                return packed_ref(words, bits, shape[1])
    raise ArtefactError(
        f"{words.path}: {words.name} is {words.dtype} {list(words.shape)}, which holds no codes of "
        f"4 or 8 bits of a weight {list(shape) if shape else 'without weight_shape'}, "
        f"{WORD_BITS} bits a word."
    )


def _scale_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a scale in ModelOpt's layout."""
    return () if shape == (1,) else (shape[0],) if shape[1:] == (1,) else shape


def precision_of(weights: Any, inputs: Any) -> Precision | None:
    """Return the precision of one scheme of compressed-tensors; None if it is none of ours.

    Raises:
        KeyError: a scheme lacks a key.
        TypeError: a scheme is no object.
    """
    told = _scheme(weights) | {"dynamic": False}, _scheme(inputs) if inputs else None
    for precision in QUANTIZED.values():
        if (precision.weights.scheme, precision.inputs.scheme) == told:
            return precision
    return None


def _scheme(told: dict[str, Any]) -> dict[str, Any]:
    """Return what a config says of weights or inputs, as `Numbers.scheme` does."""
    return {
        "num_bits": told["num_bits"],
        "type": told["type"],
        "symmetric": bool(told.get("symmetric", True)),
        "strategy": told["strategy"],
        "dynamic": bool(told.get("dynamic")),
    }
