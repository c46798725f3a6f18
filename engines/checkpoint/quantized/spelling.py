"""A checkpoint's tensors by our names: codes that kernels take stay codes, others are floats."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.quantized.linears import CODE_LEAVES, decoded_linear
from nemotrt.engines.checkpoint.quantized.scheme import Layout, QuantConfig
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.errors import ArtefactError

# What may stand beside a linear's codes, in any layout; a bias is no part of them.
CODE_TENSORS = (
    *CODE_LEAVES,
    *("weight_scale", "weight_scale_2", "weight_scale_inv", "weight_global_scale", "scales"),
    *("weight_zero_point", "qzeros", "weight_shape", "weight_g_idx", "g_idx", "pre_quant_scale"),
    *("input_scale", "input_global_scale", "input_zero_point", "input_scale_ub"),
)


@dataclass(frozen=True, slots=True)
class OffsetBinaryRef(TensorRef):
    """int8 codes stored as code + 128, four in an int32."""

    def map(self) -> npt.NDArray[Any]:
        """Return the codes, decoded into memory."""
        return self._decoded(TensorRef.map(self))

    def rows(self, part: slice) -> npt.NDArray[Any]:
        """Return rows of the codes, decoded into memory."""
        return self._decoded(TensorRef.map(self)[part])

    @staticmethod
    def _decoded(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return (np.ascontiguousarray(stored).view(np.uint8) ^ np.uint8(0x80)).view(np.int8)


def spelled(stored: Iterable[tuple[str, TensorRef]], quant: QuantConfig) -> dict[str, TensorRef]:
    """Return the tensors by ModelOpt's names and shapes.

    Raises:
        ArtefactError: codes of which no config says how they are stored, or that lack a tensor.
    """
    if quant.layout is Layout.COMPRESSED_TENSORS:
        is_own = quant.precision is not None
        stored = [
            item for name, ref in stored for item in _modelopt_spelling(name, ref, is_own=is_own)
        ]
    if quant.precision is not None or not quant.schemes or quant.layout is Layout.GGUF:
        return dict(stored)
    return _as_floats(dict(stored), quant)


def _as_floats(tensors: dict[str, TensorRef], quant: QuantConfig) -> dict[str, TensorRef]:
    """Return the tensors with every weight of codes replaced by the floats that it stands for."""
    leaves: dict[str, dict[str, TensorRef]] = {}
    for name, ref in tensors.items():
        module, _, leaf = name.rpartition(".")
        if leaf in CODE_TENSORS:
            leaves.setdefault(module, {})[leaf] = ref
    found = dict(tensors)
    for module, own in leaves.items():
        codes = [own[leaf] for leaf in CODE_LEAVES if leaf in own and not own[leaf].is_float]
        if not codes:
            continue
        scheme = quant.scheme_of(module)
        if scheme is None or quant.layout is None:
            raise ArtefactError(
                f"{codes[0].path}: {codes[0].name} holds codes, but no config says how they are "
                "stored."
            )
        for leaf in own:
            del found[f"{module}.{leaf}"]
        found[f"{module}.weight"] = decoded_linear(module, own, quant.layout, scheme)
    return found


def _modelopt_spelling(
    name: str, ref: TensorRef, *, is_own: bool
) -> Iterable[tuple[str, TensorRef]]:
    """Yield the tensor by ModelOpt's name and shape; packed codes of ours by both names."""
    module, _, leaf = name.rpartition(".")
    if leaf in ("k_scale", "v_scale") and not module.endswith("_proj"):
        shape = () if ref.shape == (1,) else ref.shape
        yield f"{module}.{leaf[0]}_proj.{leaf}", replace(ref, shape=shape)
        return
    if is_own and leaf == "weight_packed" and ref.dtype == "I32" and len(ref.shape) == 2:
        rows, columns = ref.shape
        yield (
            f"{module}.weight",
            OffsetBinaryRef(ref.name, "I8", (rows, 4 * columns), *_place(ref)),
        )
    if is_own and leaf in ("weight_scale", "input_scale"):
        shape = () if ref.shape == (1,) else (ref.shape[0],) if ref.shape[1:] == (1,) else ref.shape
        ref = replace(ref, shape=shape)
    yield name, ref


def _place(ref: TensorRef) -> tuple[Path, int, int]:
    return ref.path, ref.offset, ref.num_bytes
