"""Checks one quantized linear: its scales' types and shapes, its codes' range."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.model.numerics import FLOATS, NumberFormat, Precision
from nemotrt.engines.model.tensor_names import expected_shapes
from nemotrt.quantize.conversion.convert import chunks
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.reading.quantized_folder import QuantizedFolder
from nemotrt.quantize.recipes.selection import sharing_scale
from nemotrt.quantize.scales.amax import has_one_scale

E4M3_MAX_CODE, E4M3_NAN = 0x7E, 0x7F
ACTIVATIONS = tuple(item.safetensors for item in FLOATS)  # the types of pre_quant_scale


def linear_faults(folder: QuantizedFolder, module: str, codes: TensorRef) -> Iterator[str]:
    """Yield what is wrong with one quantized linear."""
    if folder.bits(module) == NumberFormat.INT4.num_bits:
        yield from _group_faults(folder, module)
        return
    numbers = folder.precision.weights
    if numbers.is_grouped:  # int8 beside int4
        numbers = Precision.INT8_WO.weights
    expected = folder.layout.scale_shape(numbers, codes.shape[0])
    types = (
        ("F32",) if folder.layout is CheckpointFormat.MODELOPT else ("F32", "BF16")
    )  # of llm-compressor
    wanted: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {"weight_scale": (types, expected)}
    if folder.precision.has_input_scale:
        wanted["input_scale"] = types, folder.layout.one_scale
    if f"{module}.pre_quant_scale" in folder.tensors:
        wanted["pre_quant_scale"] = ACTIVATIONS, codes.shape[1:]
    for leaf, (dtypes, shape) in wanted.items():
        ref = folder.tensors.get(f"{module}.{leaf}")
        if ref is None:
            yield f"{module}.{leaf} is missing"
        else:
            yield from scale_faults(f"{module}.{leaf}", ref, dtypes, shape)
    scale = folder.tensors.get(f"{module}.weight_scale")
    if scale is not None:
        yield from _code_faults(folder, module, codes, scale)


def _group_faults(folder: QuantizedFolder, module: str) -> Iterator[str]:
    """Yield what is wrong with the scales of int4 codes; no code must be the largest."""
    name = f"{module}.weight_scale"
    ref, shape = folder.tensors.get(name), expected_shapes(folder.model)[f"{module}.weight"]
    sizes = [size for size in folder.quant.group_sizes if shape[1] % size == 0]
    numbers = folder.precision.weights
    wanted = [folder.layout.scale_shape(numbers, shape[0], shape[1] // size) for size in sizes]
    if ref is None:
        yield f"{name} is missing"
    elif ref.shape not in wanted:
        told = ", ".join(map(str, sorted(folder.quant.group_sizes))) or "no size"
        yield f"{name} is {list(ref.shape)} for {list(shape)}; config.json says groups of {told}"
    else:
        yield from scale_faults(name, ref, ACTIVATIONS, ref.shape)


def scale_faults(
    name: str, ref: TensorRef, dtypes: tuple[str, ...], shape: tuple[int, ...]
) -> Iterator[str]:
    """Yield what is wrong with the type, the shape or the values of scales."""
    if ref.dtype not in dtypes or ref.shape != shape:
        yield f"{name} is {ref.dtype} {list(ref.shape)}, expected {dtypes[0]} {list(shape)}"
    elif not (np.isfinite(values := ref.map().astype(np.float32)).all() and (values > 0).all()):
        yield f"{name} holds a value that is not positive and finite"


def _code_faults(
    folder: QuantizedFolder, module: str, codes: TensorRef, scale: TensorRef
) -> Iterator[str]:
    """Yield NaN codes, and channels whose largest code is not the format's."""
    largest, is_fp8 = _row_maxima(codes), codes.dtype == NumberFormat.FP8.safetensors
    if is_fp8 and (largest == E4M3_NAN).any():
        yield f"{module} has NaN codes"
        return
    if scale.num_bytes == scale.numpy_dtype.itemsize:
        largest = largest.max(initial=0, keepdims=True)
        for other in _sharing(folder, module):  # one of them has the largest weight
            largest = np.maximum(largest, _row_maxima(other).max(initial=0))
    full = E4M3_MAX_CODE if is_fp8 else int(NumberFormat.INT8.largest_code)
    values = scale.map().astype(np.float32).reshape(-1)
    if largest.size != values.size:
        return
    # A scale at the bottom of float32's or float16's range is clamped: its codes stay small.
    # compressed-tensors divides by 127.5, so that -128 may be the largest of int8.
    wasted = (largest < full) & (largest != 0) & (values > np.float32(6.2e-5 / 127))
    if wasted.any():
        row = int(np.flatnonzero(wasted)[0])
        yield f"{module}, channel {row}: the largest code is {int(largest[row])}, not {full}"


def _sharing(folder: QuantizedFolder, module: str) -> Iterator[TensorRef]:
    """Yield the codes of the other modules that have one scale together with `module`."""
    group = sharing_scale(folder.model).get(f"{module}.weight", ())
    if has_one_scale(folder.tensors, group):
        for other in (name.removesuffix(".weight") for name in group):
            if other != module and (codes := folder.codes(other)) is not None:
                yield codes


def _row_maxima(codes: TensorRef) -> npt.NDArray[np.uint8]:
    """Return the largest magnitude code of each row; E4M3 magnitudes are ordered as bytes."""
    raw = codes.map().view(np.uint8)
    result = np.empty(codes.shape[0], np.uint8)
    for rows in chunks(raw.shape):
        part = np.asarray(raw[rows])
        if codes.dtype == NumberFormat.FP8.safetensors:
            size = part & 0x7F
        else:
            signed = (part ^ 0x80 if codes.dtype == "I32" else part).view(np.int8)
            size = np.abs(signed.astype(np.int16)).astype(np.uint8)
        result[rows] = size.max(axis=1, initial=0)
    return result
