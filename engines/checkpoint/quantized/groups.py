"""The schemes in a compressed-tensors config: weights and inputs of each group of modules.

Source: compressed-tensors 0.20, quantization/quant_args.py and quant_scheme.py.
"""

from dataclasses import replace
from typing import Any

from nemotrt.engines.checkpoint.quantized.scheme import Scheme
from nemotrt.engines.model.config_fields import Fields
from nemotrt.engines.model.numerics import (
    GROUP_SIZES,
    QUANTIZED,
    Granularity,
    NumberFormat,
    Numbers,
    Precision,
)
from nemotrt.errors import ArtefactError, ConfigError

CLASSES = ("Linear",)  # a target that stands for every linear
IN_ORDER = (None, "weight", "static")  # activation orders whose groups are of adjoining inputs
MERGED = ("weight_input", "weight_output")  # where a rotation is part of the stored weight
SHARED: dict[str, tuple[int, int]] = {Granularity.TENSOR: (0, 0), Granularity.CHANNEL: (1, 0)}


def compressed_schemes(fields: Fields) -> tuple[tuple[tuple[str, ...], Scheme], ...]:
    """Return the patterns of modules of each config group, with the group's scheme.

    Raises:
        ArtefactError: a key is missing or of another kind than it should be.
        ConfigError: it is a scheme that can't be read.
    """
    _check_extras(fields)
    groups = fields.raw.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise ArtefactError(f"{fields.source} is malformed: config_groups is {groups!r}.")
    found = []
    for group in groups.values():
        try:
            targets = [str(target) for target in group.get("targets", CLASSES)]
            weights, inputs = dict(group["weights"]), group.get("input_activations")
            told = dict(inputs) if inputs else None
            outputs = group.get("output_activations")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArtefactError(f"{fields.source} is malformed: {error!r}.") from None
        if outputs:
            raise _without_engine(fields, f"output_activations {outputs!r}")
        patterns = () if set(targets) & set(CLASSES) else tuple(targets)
        layout = str(group.get("format") or fields.raw.get("format") or "")
        found.append((patterns, _scheme(weights, told, layout, fields)))
    every = [scheme for patterns, scheme in found if not patterns]
    if any(scheme != every[0] for scheme in every):
        names = " and ".join(str(scheme.precision) for scheme in every)
        raise ConfigError(
            f"{fields.source}: config_groups of {names} both have every linear as their target; "
            "only one can be true."
        )
    # Names come before the class that would take them too.
    return tuple(sorted(found, key=lambda item: not item[0]))


def _check_extras(fields: Fields) -> None:
    """Raise ConfigError for what makes other weights, or another model, of the codes.

    Sources: compressed-tensors 0.20, transform/transform_args.py and config/base.py.
    """
    sparsity = fields.raw.get("sparsity_config")
    form = sparsity.get("format", "dense") if isinstance(sparsity, dict) else sparsity
    if form not in (None, "dense"):
        raise _without_engine(fields, f"sparsity_config of format {form!r}")
    transforms = fields.raw.get("transform_config") or {}
    try:
        applied = (
            [
                apply["location"]
                for scheme in transforms["config_groups"].values()
                for apply in scheme["apply"]
            ]
            if transforms
            else []
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ArtefactError(f"{fields.source}: transform_config: {error!r}.") from None
    if online := [place for place in applied if place not in MERGED]:
        raise _without_engine(fields, f"transform_config, which rotates at {online[0]!r},")


def _without_engine(fields: Fields, what: str) -> ConfigError:
    return ConfigError(
        f"{fields.source}: {what} is not supported: its weights alone are another model. Give the "
        "16 bit checkpoint, or one quantized by `nemotrt quantize`."
    )


def _scheme(
    weights: dict[str, Any], inputs: dict[str, Any] | None, layout: str, fields: Fields
) -> Scheme:
    """Return the scheme of one group, whose file format is `layout`."""
    precision, is_own = _precision(weights, inputs, fields)
    inner = Fields(weights, fields.source)
    title = f"compressed-tensors {layout}".strip()
    num_bits = precision.weights.format.num_bits
    strategy, size = _strategy(weights), 0
    if strategy in (Granularity.GROUP, "tensor_group"):
        if not inner.has("group_size"):
            raise _none_of(weights, inputs, fields)
        size = inner.size("group_size")
    if strategy == "block":
        block = weights.get("block_structure")
        if not (isinstance(block, list) and [type(n) for n in block] == [int, int]):
            raise inner.fail("block_structure", f"must be two sizes, got {block!r}")
        return Scheme(precision, title, (block[0], block[1]), 4.0)
    shared = {**SHARED, Granularity.GROUP: (1, size), "tensor_group": (1, size)}
    if strategy not in shared:
        raise _none_of(weights, inputs, fields)
    scale = 2.0 if precision.weights.granularity is Granularity.GROUP else 4.0
    if precision.weights.format is NumberFormat.FP4:
        scale = 1.0
    zero = 0 if weights.get("symmetric", True) else num_bits / 8
    ordered = weights.get("actorder") not in IN_ORDER
    is_fp4 = precision is Precision.NVFP4_WO
    found = Scheme(precision, title, shared[strategy], scale + zero, is_own, num_bits)
    return replace(found, is_ordered=ordered, has_fp4_inputs=is_fp4 and inputs is not None)


def _strategy(told: dict[str, Any]) -> str:
    """Return what shares a scale, as compressed-tensors infers it where it is not told."""
    if told.get("strategy"):
        return str(told["strategy"])
    size = told.get("group_size")
    if size is None:
        return Granularity.TENSOR.value
    return Granularity.CHANNEL.value if size == -1 else Granularity.GROUP.value


def _precision(
    weights: dict[str, Any], inputs: dict[str, Any] | None, fields: Fields
) -> tuple[Precision, bool]:
    """Return the precision of one group's scheme, and whether it is just that.

    Where it is not, it is the first with numbers of the same kinds and bits.
    """
    told = _numbers(weights, fields), _numbers(inputs, fields) if inputs else None
    exact = told[0] | {"dynamic": False}, told[1]
    for precision in QUANTIZED.values():
        if (precision.weights.scheme, precision.inputs.scheme) == exact:
            return precision, not precision.weights.is_grouped or _has_kernels(weights)
    if told[0]["type"] == "float" and told[0]["num_bits"] == 4:
        if _strategy(weights) == "tensor_group" and told[0]["symmetric"]:
            return Precision.NVFP4_WO, False
        raise _none_of(weights, inputs, fields)
    is_dynamic = bool(inputs and inputs.get("dynamic"))
    if inputs and _strategy(inputs) == Granularity.TOKEN and not is_dynamic:
        raise _none_of(weights, inputs, fields)
    found = [
        item
        for item in Precision
        if item.is_quantized and _is_kind(item.weights, told[0]) and _is_kind(item.inputs, told[1])
    ]
    if not found:
        raise _none_of(weights, inputs, fields)
    same = (item for item in found if item.inputs.is_dynamic is is_dynamic)
    return next(same, found[0]), False


def _has_kernels(weights: dict[str, Any]) -> bool:
    """Whether groups of int4 are of a size that kernels here take, and of adjoining inputs."""
    return weights.get("group_size") in GROUP_SIZES and weights.get("actorder") in IN_ORDER


def _is_kind(numbers: Numbers, told: dict[str, Any] | None) -> bool:
    """Whether numbers have the kind and the bits that a config tells; None is of floats."""
    if told is None or not numbers.is_quantized:
        return told is None and not numbers.is_quantized
    return (numbers.format.kind, numbers.format.num_bits) == (told["type"], told["num_bits"])


def _none_of(weights: dict[str, Any], inputs: dict[str, Any] | None, fields: Fields) -> ConfigError:
    return ConfigError(
        f"{fields.source}: weights {weights} with input_activations {inputs} are none of "
        f"{', '.join(QUANTIZED)}, nor of their kinds. Give the 16 bit checkpoint, or one quantized "
        "by `nemotrt quantize`."
    )


def _numbers(told: dict[str, Any], fields: Fields) -> dict[str, Any]:
    """Return what a config says of weights or inputs, as `Numbers.scheme` does."""
    return {
        "num_bits": Fields(told, fields.source).size("num_bits", 8),
        "type": str(told.get("type", "int")),
        "symmetric": bool(told.get("symmetric", True)),
        "strategy": _strategy(told),
        "dynamic": bool(told.get("dynamic")),
    }
