"""What a checkpoint's configs say of its quantization, in any of the layouts that engines load."""

import fnmatch
import math
import re
from dataclasses import dataclass
from typing import Any

from nemotrt.engines.model.config_fields import Fields
from nemotrt.engines.model.numerics import KV_CODES, Granularity, NumberFormat, Numbers, Precision
from nemotrt.errors import ConfigError

# Sources: ModelOpt 0.47 (hf_quant_config.json), compressed-tensors 0.16 (QuantizationScheme),
# transformers 5.24 (utils/quantization_config.py: AwqConfig, GPTQConfig, FineGrainedFP8Config,
# FbgemmFp8Config).
MODELOPT_ALGOS = {item.algo: item for item in Precision if item.is_quantized}
GPTQ_BITS = {item.weights.format.num_bits: item for item in Precision if item.is_weight_only}
# What shares a scale, [rows, columns]; 0 stands for all of them.
SHARED: dict[str, tuple[int, int]] = {Granularity.TENSOR: (0, 0), Granularity.CHANNEL: (1, 0)}
METHODS = ("modelopt", "compressed-tensors", "awq", "gptq", "fp8", "fbgemm_fp8")


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the linears and the KV cache of a checkpoint are stored.

    `group` is [rows, columns] that share a scale; 0 stands for all of them. `exclude` holds names
    of modules, with wildcards, regexes behind "re:", or parts of names, as the layouts have them.
    """

    precision: Precision
    title: str
    group: tuple[int, int] = (1, 0)
    bytes_per_group: float = 4.0  # a float32 scale
    kv: NumberFormat = NumberFormat.BF16
    exclude: tuple[str, ...] = ()

    def excludes(self, module: str) -> bool:
        """Whether the config leaves `module` in 16 bits."""
        return any(_matches(pattern, module) for pattern in self.exclude)

    def linear_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of the codes and scales of one linear, [rows, columns]."""
        codes = math.prod(shape) * self.precision.weights.format.num_bits // 8
        groups = math.prod(
            math.ceil(size / (group or size)) for size, group in zip(shape, self.group, strict=True)
        )
        return codes + math.ceil(groups * self.bytes_per_group)


def _matches(pattern: str, module: str) -> bool:
    """Whether a module is what a pattern names, or lies inside it."""
    if pattern.startswith("re:"):
        return re.match(pattern[3:], module) is not None
    if fnmatch.fnmatchcase(module, pattern):
        return True
    return f".{pattern}." in f".{module}."


def nested_quantization(raw: dict[str, Any], source: str) -> Quantization | NumberFormat:
    """Return what ModelOpt's hf_quant_config.json says; of a float model its KV cache's type.

    Raises:
        ConfigError: an algorithm that the planner does not know.
    """
    inner = raw.get("quantization")
    if not isinstance(inner, dict):
        raise ConfigError(f"{source}: quantization must be an object, got {inner!r}.")
    kv = _modelopt_kv(inner.get("kv_cache_quant_algo"), source)
    if inner.get("quant_algo") is None:
        return kv
    exclude = _names(inner, "exclude_modules", source)
    return _modelopt(Fields(inner, source), kv, exclude)


def flat_quantization(flat: dict[str, Any], source: str) -> Quantization:
    """Return what `quantization_config` of a config.json says.

    Raises:
        ConfigError: a method, bits or a scheme that the planner does not know.
    """
    fields = Fields(flat, f"{source}: quantization_config")
    method = fields.text("quant_method")
    if method == "modelopt":
        kv = _kv_scheme(fields)
        return _modelopt(fields, kv, _names(flat, "ignore", fields.source))
    if method == "compressed-tensors":
        return _compressed_tensors(fields)
    if method == "awq":
        return _grouped(fields, Precision.INT4_WO, "AWQ", fields.size("bits", 4))
    if method == "gptq":
        bits = fields.size("bits")
        if bits not in GPTQ_BITS or fields.raw.get("dynamic"):
            raise _unknown(fields.source, f"GPTQ of {bits} bits, or of some for each module")
        return _grouped(fields, GPTQ_BITS[bits], f"GPTQ, {bits} bits", bits)
    if method in ("fp8", "fbgemm_fp8"):
        block = flat.get("weight_block_size") or [1, 0]
        exclude = _names(flat, "modules_to_not_convert", fields.source)
        return Quantization(Precision.FP8_DYNAMIC, method, _block(block, fields), exclude=exclude)
    raise _unknown(fields.source, f"quant_method {method!r}")


def _unknown(source: str, what: str) -> ConfigError:
    """Return the error for a quantization that would be planned wrongly."""
    return ConfigError(
        f"{source}: {what} is not a quantization that the planner knows, so it can't say what "
        f"fits; it knows {', '.join(METHODS)} with 4 or 8 bit weights. Plan the 16 bit checkpoint, "
        "or one quantized by `nemotrt quantize`."
    )


def _names(raw: dict[str, Any], key: str, source: str) -> tuple[str, ...]:
    """Return a list of names; none where there is no list."""
    names = raw.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{source}: {key} must be a list of names, got {names!r}.")
    for name in names:
        try:
            re.compile(name.removeprefix("re:") if name.startswith("re:") else "")
        except re.error as error:
            raise ConfigError(f"{source}: {key} has a bad regex {name!r}: {error}.") from None
    return tuple(names)


def _block(value: Any, fields: Fields) -> tuple[int, int]:
    """Return [rows, columns] that share a scale."""
    is_pair = isinstance(value, list) and len(value) == 2
    if not is_pair or not all(isinstance(size, int) and size >= 0 for size in value):
        raise fields.fail("weight_block_size", f"must be two sizes, got {value!r}")
    return value[0], value[1]


def _modelopt_kv(algo: Any, source: str) -> NumberFormat:
    if algo is None:
        return NumberFormat.BF16
    if algo not in KV_CODES:
        raise _unknown(source, f"kv_cache_quant_algo {algo!r}")
    return KV_CODES[algo]


def _kv_scheme(fields: Fields) -> NumberFormat:
    """Return the KV cache's type by `kv_cache_scheme`; without one it has 16 bits."""
    scheme = fields.raw.get("kv_cache_scheme")
    if not scheme:
        return NumberFormat.BF16
    told = _kind(scheme, fields)
    for code in KV_CODES.values():
        if (code.kind, code.num_bits) == told:
            return code
    raise _unknown(fields.source, f"kv_cache_scheme {scheme!r}")


def _kind(scheme: Any, fields: Fields) -> tuple[str, int]:
    """Return the type and the bits of a compressed-tensors scheme."""
    if not isinstance(scheme, dict):
        raise ConfigError(f"{fields.source}: a scheme must be an object, got {scheme!r}.")
    inner = Fields(scheme, fields.source)
    return str(scheme.get("type", "int")), inner.size("num_bits", 8)


def _modelopt(fields: Fields, kv: NumberFormat, exclude: tuple[str, ...]) -> Quantization:
    algo = fields.text("quant_algo")
    if algo not in MODELOPT_ALGOS:
        raise _unknown(fields.source, f"quant_algo {algo!r}")
    precision, title = MODELOPT_ALGOS[algo], f"ModelOpt {algo}"
    granularity = precision.weights.granularity
    if granularity is Granularity.GROUP:
        group = 1, fields.size("group_size", 128)
        return Quantization(precision, title, group, 2.0, kv, exclude)
    scales = 8.0 if granularity is Granularity.TENSOR else 4.0  # the input's too
    return Quantization(precision, title, SHARED[granularity], scales, kv, exclude)


def _grouped(fields: Fields, precision: Precision, title: str, bits: int) -> Quantization:
    """Return AWQ or GPTQ: a float16 scale and a zero point of `bits` bits a group of inputs."""
    if bits != precision.weights.format.num_bits:
        raise _unknown(fields.source, f"{title} of {bits} bits")
    group = 0 if fields.raw.get("group_size") == -1 else fields.size("group_size", 128)
    exclude = _names(fields.raw, "modules_to_not_convert", fields.source)
    return Quantization(precision, title, (1, group), 2 + bits / 8, exclude=exclude)


def _compressed_tensors(fields: Fields) -> Quantization:
    """Return a compressed-tensors config whose groups all have one scheme."""
    groups = fields.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise fields.fail("config_groups", f"must be an object with groups, got {groups!r}")
    found = {_scheme(group, fields) for group in groups.values()}
    if len(found) > 1:
        raise _unknown(fields.source, f"config_groups of {len(found)} kinds")
    precision, group, bytes_per_group = found.pop()
    exclude = _names(fields.raw, "ignore", fields.source)
    title = f"compressed-tensors {fields.raw.get('format', '')}".strip()
    return Quantization(precision, title, group, bytes_per_group, _kv_scheme(fields), exclude)


def _scheme(group: Any, fields: Fields) -> tuple[Precision, tuple[int, int], float]:
    """Return precision, what shares a scale, and the bytes of that scale of one group's scheme."""
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        raise fields.fail("config_groups", f"holds a group without weights: {group!r}")
    inputs = group.get("input_activations")
    precision = _precision(weights, inputs, fields)
    inner = Fields(weights, fields.source)
    is_grouped = inner.has("group_size") and weights["group_size"] != -1
    size = inner.size("group_size") if is_grouped else 0
    strategy = weights.get("strategy") or ("group" if size else "tensor")
    shared = {**SHARED, Granularity.GROUP: (1, size)}
    if strategy == "block":
        return precision, _block(weights.get("block_structure"), fields), 4.0
    if strategy not in shared:
        raise _unknown(fields.source, f"weights with strategy {strategy!r}")
    bits = precision.weights.format.num_bits
    zero = 0 if weights.get("symmetric", True) else bits / 8
    scale = 2.0 if precision.weights.granularity is Granularity.GROUP else 4.0
    return precision, shared[strategy], scale + zero


def _precision(weights: dict[str, Any], inputs: Any, fields: Fields) -> Precision:
    """Return the precision of one group's scheme, by the kinds and bits of its numbers."""
    told = _kind(weights, fields), _kind(inputs, fields) if inputs else None
    found = [
        item
        for item in Precision
        if item.is_quantized and (_code(item.weights), _code(item.inputs)) == told
    ]
    if not found:
        raise _unknown(fields.source, f"weights {told[0]} with input_activations {told[1]}")
    is_dynamic = bool(inputs and inputs.get("dynamic"))
    return next((item for item in found if item.inputs.is_dynamic is is_dynamic), found[0])


def _code(numbers: Numbers) -> tuple[str, int] | None:
    """Return what `_kind` reads of a scheme that the numbers have; None of floats."""
    code = numbers.format
    return (code.kind, code.num_bits) if numbers.is_quantized else None
