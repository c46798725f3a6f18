"""What a checkpoint's configs say of its quantization, in any layout: the one reader."""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nemotrt.engines.checkpoint.quantized.groups import compressed_schemes
from nemotrt.engines.checkpoint.quantized.scheme import Layout, QuantConfig, Scheme
from nemotrt.engines.model.config_fields import Fields
from nemotrt.engines.model.numerics import (
    FP4_GROUP,
    GROUP_SIZES,
    KV_CODES,
    QUANTIZED,
    Granularity,
    NumberFormat,
    Precision,
)
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.files.text_file import read_json_object

QUANT_CONFIG_FILE = "hf_quant_config.json"
# Sources: ModelOpt 0.47 (export/quant_utils.py), transformers 5.24 (utils/quantization_config.py:
# AwqConfig, GPTQConfig, FineGrainedFP8Config, FbgemmFp8Config).
MODELOPT_ALGOS = {item.algo: item for item in Precision if item.is_quantized} | {
    "NVFP4": Precision.NVFP4_WO,
    "NVFP4_AWQ": Precision.NVFP4_WO,
}
FP4_INPUTS = ("NVFP4", "NVFP4_AWQ")  # of which the inputs are FP4 too, by a stored input_scale
DEFAULT_SIZES = {NumberFormat.INT4: 128, NumberFormat.FP4: FP4_GROUP}
GPTQ_BITS = {4: Precision.INT4_WO, 8: Precision.INT8_WO}
GPTQ_ZEROS = {"gptq": 1, "gptq_v2": 0}  # what is added: version 1 stores a zero point less one
METHODS = tuple(layout.value for layout in Layout)
GGUF_BITS = {"Q4_0": 4, "Q4_1": 4, "Q4_K": 4, "Q5_0": 5, "Q5_1": 5, "Q5_K": 5, "Q6_K": 6, "Q8_0": 8}
MIXED = "MIXED_PRECISION"


def flat_quantization(checkpoint: Path) -> dict[str, Any] | None:
    """Return `quantization_config` of the folder's config.json; None if it has none.

    Raises:
        ArtefactError: config.json is not an object with an object there.
    """
    path = checkpoint / "config.json"
    return flat_of(read_json_object(path), str(path)) if path.is_file() else None


def flat_of(raw: dict[str, Any], source: str) -> dict[str, Any] | None:
    """Return what a config.json says of quantization, by either name; None if it says nothing."""
    flat = raw.get("quantization_config") or raw.get("compression_config")
    if flat is not None and not isinstance(flat, dict):
        raise ArtefactError(f"{source}: quantization_config is not an object, but {flat!r}.")
    return flat


def read_quant_config(checkpoint: Path) -> QuantConfig:
    """Return the quantization of the checkpoint folder; a folder without a config of it has none.

    hf_quant_config.json holds where both are there, as in TensorRT-LLM.

    Raises:
        ArtefactError: a file is not of the documented form.
        ConfigError: it is quantized in a way that can't be read; the message has the cure.
    """
    path = checkpoint / QUANT_CONFIG_FILE
    if path.is_file():
        try:
            raw = read_json_object(path)
        except ArtefactError as error:
            raise ArtefactError(f"{path} is malformed: {error.message}") from error
        return nested_config(raw, str(path))
    flat = flat_quantization(checkpoint)
    return flat_config(flat, f"{checkpoint / 'config.json'}") if flat else QuantConfig()


def nested_config(raw: dict[str, Any], source: str) -> QuantConfig:
    """Return what ModelOpt's hf_quant_config.json says."""
    inner = raw.get("quantization")
    if not isinstance(inner, dict):
        raise ArtefactError(f"{source} is malformed: quantization is {inner!r}, not an object.")
    kv_algo = inner.get("kv_cache_quant_algo")
    exclude = _names(inner, "exclude_modules", source)
    return _modelopt(inner, source, kv_algo and str(kv_algo), exclude)


def flat_config(flat: dict[str, Any], source: str) -> QuantConfig:
    """Return what `quantization_config` of a config.json says."""
    fields = Fields(flat, f"{source}: quantization_config")
    method = fields.text("quant_method")
    if method == Layout.MODELOPT:
        return _modelopt(
            flat, fields.source, _kv_algo(fields), _names(flat, "ignore", fields.source)
        )
    if method == Layout.COMPRESSED_TENSORS:
        exclude = _names(flat, "ignore", fields.source)
        schemes = compressed_schemes(fields)
        for patterns, _ in schemes:
            _check_regexes(patterns, "targets", fields.source)
        return QuantConfig(Layout.COMPRESSED_TENSORS, schemes, _kv_algo(fields), exclude)
    if method not in METHODS:
        raise _unknown(fields.source, f"quant_method {method!r}")
    if method == Layout.GGUF:
        return QuantConfig(Layout.GGUF, (((), _gguf(fields)),))
    scheme = {
        Layout.AWQ: _awq,
        Layout.GPTQ: _gptq,
        Layout.FP8: _block_fp8,
        Layout.FBGEMM_FP8: _block_fp8,
    }[Layout(method)](fields)
    exclude = _names(flat, "modules_to_not_convert", fields.source)
    return QuantConfig(Layout(method), (((), scheme),), None, exclude)


def _unknown(source: str, what: str, known: Iterable[str] = METHODS) -> ConfigError:
    """Return the error for a quantization that would be read or planned wrongly."""
    return ConfigError(
        f"{source}: {what} is not supported; known: {', '.join(known)}. Give the 16 bit checkpoint "
        "that it came from, or one quantized by `nemotrt quantize`."
    )


def _names(raw: dict[str, Any], key: str, source: str) -> frozenset[str]:
    """Return a list of names; none where there is no list."""
    names = raw.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ArtefactError(f"{source} is malformed: {key} must be a list of names, got {names!r}.")
    _check_regexes(names, key, source)
    return frozenset(names)


def _check_regexes(names: Iterable[str], key: str, source: str) -> None:
    for name in names:
        try:
            re.compile(name.removeprefix("re:") if name.startswith("re:") else "")
        except re.error as error:
            raise ArtefactError(f"{source}: {key} has a bad regex {name!r}: {error}.") from None


def _kv_algo(fields: Fields) -> str | None:
    """Return ModelOpt's word for the cache that `kv_cache_scheme` tells; None without one."""
    scheme = fields.raw.get("kv_cache_scheme")
    if not scheme:
        return None
    if not isinstance(scheme, dict):
        raise ArtefactError(f"{fields.source} is malformed: kv_cache_scheme is {scheme!r}.")
    told = str(scheme.get("type", "int")), scheme.get("num_bits", 8)
    if scheme.get("strategy") not in (None, "tensor") or scheme.get("dynamic"):
        raise _unknown(
            fields.source, f"kv_cache_scheme {scheme!r}", ("one stored scale for each layer",)
        )
    for word, code in KV_CODES.items():
        if (code.kind, code.num_bits) == told and scheme.get("symmetric", True):
            return word
    raise _unknown(fields.source, f"kv_cache_scheme {scheme!r}", KV_CODES)


def _modelopt(
    raw: dict[str, Any], source: str, kv_algo: str | None, exclude: frozenset[str]
) -> QuantConfig:
    algo = raw.get("quant_algo")
    if algo in (None, "none"):
        return QuantConfig(Layout.MODELOPT, (), kv_algo, exclude)
    if algo != MIXED:
        scheme = _modelopt_scheme(Fields(raw, source))
        return QuantConfig(Layout.MODELOPT, (((), scheme),), kv_algo, exclude)
    layers = raw.get("quantized_layers")
    if not isinstance(layers, dict) or not layers:
        raise _unknown(source, f"quant_algo {MIXED!r} without quantized_layers", MODELOPT_ALGOS)
    by_scheme: dict[Scheme, list[str]] = {}
    for module, told in layers.items():
        if not isinstance(told, dict):
            raise ArtefactError(f"{source} is malformed: {module} is {told!r}, not an object.")
        by_scheme.setdefault(_modelopt_scheme(Fields(told, source)), []).append(module)
    schemes = tuple((tuple(modules), scheme) for scheme, modules in by_scheme.items())
    return QuantConfig(Layout.MODELOPT, schemes, kv_algo, exclude)


def _modelopt_scheme(fields: Fields) -> Scheme:
    """Return the scheme of a quant_algo, with its group size where it has groups."""
    algo = fields.text("quant_algo")
    if algo not in MODELOPT_ALGOS:
        raise _unknown(fields.source, f"quant_algo {algo!r}", MODELOPT_ALGOS)
    precision, title = MODELOPT_ALGOS[algo], f"ModelOpt {algo}"
    code, granularity = precision.weights.format, precision.weights.granularity
    is_own = algo in QUANTIZED
    if granularity is Granularity.GROUP:
        size = fields.size("group_size", DEFAULT_SIZES[code])
        scale_bytes = 1.0 if code is NumberFormat.FP4 else 2.0
        is_own &= size in GROUP_SIZES
        found = Scheme(precision, title, (1, size), scale_bytes, is_own, code.num_bits)
        return replace(found, has_fp4_inputs=algo in FP4_INPUTS)
    if granularity is Granularity.TENSOR:
        return Scheme(precision, title, (0, 0), 8.0, is_own)  # the input's scale too
    return Scheme(precision, title, (1, 0), 4.0, is_own)


def _awq(fields: Fields) -> Scheme:
    if (bits := fields.size("bits", 4)) != 4:
        raise _unknown(fields.source, f"AWQ of {bits} bits", ("4 bits",))
    version = fields.raw.get("version") or _format_of(fields.raw) or "gemm"
    if (version := str(version).lower()) != "gemm":
        raise _unknown(fields.source, f"AWQ's version {version!r}", ("gemm",))
    return _grouped(fields, Precision.INT4_WO, "AWQ", bits)


def _gptq(fields: Fields) -> Scheme:
    bits, order = fields.size("bits"), _format_of(fields.raw) or "gptq"
    if bits not in GPTQ_BITS or fields.raw.get("dynamic"):
        raise _unknown(
            fields.source, f"GPTQ of {bits} bits, or of some for each module", ("4 and 8 bits",)
        )
    if order not in GPTQ_ZEROS:
        raise _unknown(fields.source, f"GPTQ's checkpoint_format {order!r}", GPTQ_ZEROS)
    found = _grouped(fields, GPTQ_BITS[bits], f"GPTQ, {bits} bits", bits, GPTQ_ZEROS[order])
    return replace(found, is_ordered=bool(fields.raw.get("desc_act")))


def _format_of(raw: dict[str, Any]) -> Any:
    """Return GPTQModel's word for a file's format, by either of its names."""
    return raw.get("checkpoint_format") or raw.get("format")


def _grouped(
    fields: Fields, precision: Precision, title: str, bits: int, zero_offset: int = 0
) -> Scheme:
    """Return AWQ or GPTQ: a float16 scale and a zero point of `bits` bits for some inputs."""
    group = 0 if fields.raw.get("group_size") == -1 else fields.size("group_size", 128)
    scale_bytes = 2 + bits / 8
    return Scheme(precision, title, (1, group), scale_bytes, num_bits=bits, zero_offset=zero_offset)


def _block_fp8(fields: Fields) -> Scheme:
    """Return FP8 with a scale for each block of weights, and for each token at run time."""
    block = fields.raw.get("weight_block_size") or [1, 0]
    if not (isinstance(block, list) and [type(size) for size in block] == [int, int]):
        raise fields.fail("weight_block_size", f"must be two sizes, got {block!r}")
    return Scheme(Precision.FP8_DYNAMIC, fields.text("quant_method"), (block[0], block[1]))


def _gguf(fields: Fields) -> Scheme:
    """Return what a GGUF file's own types are near to; the planner counts the file's bytes."""
    types = fields.get("types")
    if not isinstance(types, dict) or not types or not all(name in GGUF_BITS for name in types):
        raise fields.fail("types", f"must count tensors of {', '.join(GGUF_BITS)}, got {types!r}")
    bits = GGUF_BITS[next(iter(types))]
    precision = Precision.INT4_WO if bits <= 5 else Precision.INT8_WO
    return Scheme(precision, f"GGUF {', '.join(types)}", (1, 32), 2.0, num_bits=bits)
