"""A checkpoint's tensors by our names: codes that kernels take stay codes, others are floats."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from nemotrt.engines.checkpoint.codes.packed import INT4_WORD, paired_ref
from nemotrt.engines.checkpoint.quantized.leaves import FLOAT_TYPES, Leaves, group_of
from nemotrt.engines.checkpoint.quantized.linears import CODE_LEAVES, decoded_linear, packed_codes
from nemotrt.engines.checkpoint.quantized.scheme import Layout, QuantConfig
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ArtefactError

# What may stand beside a linear's codes, in any layout; a bias is no part of them.
CODE_TENSORS = (
    *CODE_LEAVES,
    *("weight_scale", "weight_scale_2", "weight_scale_inv", "weight_global_scale", "scales"),
    *("weight_zero_point", "qzeros", "weight_shape", "weight_g_idx", "g_idx", "pre_quant_scale"),
    *("input_scale", "input_global_scale", "input_zero_point", "input_scale_ub"),
)
HOW_PACKED = ("weight_packed", "weight_shape", "weight_g_idx")
PACKED_BITS = (4, 8)  # of codes in int32


def spelled(stored: Iterable[tuple[str, TensorRef]], quant: QuantConfig) -> dict[str, TensorRef]:
    """Return the tensors by ModelOpt's names and shapes.

    Raises:
        ArtefactError: codes of which no config says how they are stored, or that lack a tensor.
    """
    tensors = dict(stored)
    if quant.layout is Layout.COMPRESSED_TENSORS:
        tensors = dict(_cache_scale(name, ref) for name, ref in tensors.items())
    if not quant.schemes or quant.layout is Layout.GGUF:
        return tensors
    if quant.layout is Layout.MODELOPT and quant.precision not in (None, Precision.INT4_WO):
        return tensors
    for module, leaves in _linears(tensors).items():
        for leaf in leaves:
            del tensors[f"{module}.{leaf}"]
        own = _spelled(module, leaves, quant)
        tensors |= {f"{module}.{leaf}": ref for leaf, ref in own.items()}
    return tensors


def _linears(tensors: Mapping[str, TensorRef]) -> dict[str, dict[str, TensorRef]]:
    """Return what stands for the weight of each linear that holds codes, by its last names."""
    found: dict[str, dict[str, TensorRef]] = {}
    for name, ref in tensors.items():
        module, _, leaf = name.rpartition(".")
        if leaf in CODE_TENSORS:
            found.setdefault(module, {})[leaf] = ref
    return {module: leaves for module, leaves in found.items() if _codes(leaves)}


def _codes(leaves: Mapping[str, TensorRef]) -> TensorRef | None:
    return next((leaves[x] for x in CODE_LEAVES if x in leaves and not leaves[x].is_float), None)


def _spelled(module: str, leaves: dict[str, TensorRef], quant: QuantConfig) -> dict[str, TensorRef]:
    """Return one linear's tensors: codes with their scales, or the floats that they stand for."""
    own = _as_codes(Leaves(module, leaves)) if quant.precision is not None else None
    if own is not None:
        return own
    scheme, codes = quant.scheme_of(module), _codes(leaves)
    if scheme is None or quant.layout is None:
        assert codes is not None  # _linears() chose the module for them
        raise ArtefactError(
            f"{codes.path}: {codes.name} holds codes, but no config says how they are stored."
        )
    return {"weight": decoded_linear(module, leaves, quant.layout, scheme)}


def _as_codes(tensors: Leaves) -> dict[str, TensorRef] | None:
    """Return a linear's codes and scales; None of int4 codes that stand for something else.

    That is so with zero points, an order of inputs, or factors on them, of which AWQ's are folded
    into floats: to round those to int4 again would lose what AWQ won.
    """
    if tensors.has("weight_packed"):
        weight: TensorRef = packed_codes(tensors, PACKED_BITS)
    else:
        weight = tensors.leaves["weight"]
        weight = paired_ref(tensors.matrix("weight", ("U8",))) if weight.dtype == "U8" else weight
    if weight.dtype == INT4_WORD and not _is_plain(tensors, weight.shape[1]):
        return None
    kept = {leaf: ref for leaf, ref in tensors.leaves.items() if leaf not in HOW_PACKED}
    return {leaf: _scale(leaf, ref) for leaf, ref in kept.items()} | {"weight": weight}


def _is_plain(tensors: Leaves, num_inputs: int) -> bool:
    """Whether int4 codes times the scales of adjoining inputs are the weight."""
    if tensors.has("weight_zero_point"):
        return False
    if tensors.has("pre_quant_scale"):
        factors = tensors.take("pre_quant_scale", FLOAT_TYPES).map()
        if (factors != 1).any():
            return False
    if not tensors.has("weight_g_idx"):
        return True
    count = tensors.matrix("weight_scale", FLOAT_TYPES).shape[1]
    return group_of(tensors, "weight_g_idx", num_inputs, count) is None


def _scale(leaf: str, ref: TensorRef) -> TensorRef:
    """Return a tensor beside codes; a scale in the shape of ModelOpt's layout."""
    if leaf not in ("weight_scale", "input_scale"):
        return ref
    shape = () if ref.shape == (1,) else (ref.shape[0],) if ref.shape[1:] == (1,) else ref.shape
    return replace(ref, shape=shape)


def _cache_scale(name: str, ref: TensorRef) -> tuple[str, TensorRef]:
    """Return a tensor of compressed-tensors' layout, a scale of the cache by ModelOpt's name."""
    module, _, leaf = name.rpartition(".")
    if leaf not in ("k_scale", "v_scale") or module.endswith("_proj"):
        return name, ref
    shape = () if ref.shape == (1,) else ref.shape
    return f"{module}.{leaf[0]}_proj.{leaf}", replace(ref, shape=shape)
