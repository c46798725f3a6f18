"""What a checkpoint's configs say of its quantized linears: ModelOpt's, or compressed-tensors'."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from nemotrt.engines.model.numerics import KV_CODES, QUANTIZED, Precision
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.files.text_file import read_json_object

QUANT_CONFIG_FILE = "hf_quant_config.json"
COMPRESSED_TENSORS = "compressed-tensors"  # quant_method of config.json
KV_WORDS = {code.kind: word for word, code in KV_CODES.items()}  # by compressed-tensors' type


@dataclass(frozen=True, slots=True)
class QuantConfig:
    """The quantization of a checkpoint.

    `precision` is what its linears are stored for, None where they are floats; `exclude` holds
    module names, or patterns of them.
    """

    precision: Precision | None = None
    kv_cache_algo: str | None = None
    exclude: frozenset[str] = frozenset()

    @property
    def algo(self) -> str:
        """ModelOpt's word for the linears, `none` for floats."""
        return self.precision.algo if self.precision else "none"

    @property
    def has_fp8_cache(self) -> bool:
        """Whether the KV cache is to be FP8."""
        return self.kv_cache_algo == "FP8"

    def excludes(self, module: str) -> bool:
        """Whether the list has `module`, by its name or a shell pattern such as `*mixer*`.

        Source: TensorRT-LLM and vLLM 0.33 match ModelOpt's list by fnmatch.
        """
        return module in self.exclude or any(fnmatchcase(module, name) for name in self.exclude)


def flat_quantization(checkpoint: Path) -> dict[str, Any] | None:
    """Return `quantization_config` of the folder's config.json; None if it has none.

    Raises:
        ArtefactError: config.json is not an object with an object there.
    """
    path = checkpoint / "config.json"
    if not path.is_file():
        return None
    flat = read_json_object(path).get("quantization_config")
    if flat is not None and not isinstance(flat, dict):
        raise ArtefactError(f"{path}: quantization_config is not an object, but {flat!r}.")
    return flat


def is_compressed(checkpoint: Path) -> bool:
    """Whether the folder is quantized in the layout of compressed-tensors."""
    return (flat_quantization(checkpoint) or {}).get("quant_method") == COMPRESSED_TENSORS


def read_quant_config(checkpoint: Path) -> QuantConfig:
    """Return the quantization of the checkpoint folder; a folder without the file has none.

    Raises:
        ArtefactError: the file is not JSON of the documented form.
        ConfigError: the algorithm is unknown, or config.json speaks of another layout.
    """
    path = checkpoint / QUANT_CONFIG_FILE
    if not path.is_file():
        return _read_flat(checkpoint)
    try:
        raw = read_json_object(path)["quantization"]
        algo, kv_algo = raw.get("quant_algo"), raw.get("kv_cache_quant_algo")
        exclude = frozenset(map(str, raw.get("exclude_modules") or ()))
    except (ArtefactError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(f"{path} is malformed: {error!r}.") from error
    return _config(path, algo, kv_algo, exclude)


def _read_flat(checkpoint: Path) -> QuantConfig:
    """Return what config.json alone says: ModelOpt's flat form, or nothing."""
    flat, path = flat_quantization(checkpoint), checkpoint / "config.json"
    if not flat:
        return QuantConfig()
    if flat.get("quant_method") == COMPRESSED_TENSORS:
        return _compressed(path, flat)
    if flat.get("quant_method") != "modelopt":
        raise ConfigError(
            f"{checkpoint} is quantized in the layout of {flat.get('quant_method')!r}, without "
            f"{QUANT_CONFIG_FILE}; give ModelOpt's: nemotrt quantize --format modelopt."
        )
    try:
        scheme = flat.get("kv_cache_scheme")
        kv_algo = KV_WORDS[scheme["type"]] if scheme else None
        exclude = frozenset(map(str, flat.get("ignore") or ()))
    except (KeyError, TypeError) as error:
        raise ArtefactError(f"{path}: quantization_config is malformed: {error!r}.") from error
    return _config(path, flat.get("quant_algo"), kv_algo, exclude)


def _compressed(path: Path, flat: dict[str, Any]) -> QuantConfig:
    """Return what a compressed-tensors config says.

    Linears in int8 beside those in int4 are stored for int4.
    """
    from nemotrt.engines.checkpoint.codes.spelling import precision_of

    try:
        groups = flat["config_groups"].values()
        schemes = [(group["weights"], group.get("input_activations")) for group in groups]
        found = {precision_of(*scheme) for scheme in schemes}
        kv_scheme = flat.get("kv_cache_scheme")
        kv_algo = KV_WORDS.get(kv_scheme["type"]) if kv_scheme else None
        is_kv_plain = not kv_scheme or (
            kv_scheme["num_bits"] == 8 and kv_scheme.get("symmetric", True)
        )
        ignore = frozenset(map(str, flat.get("ignore") or ()))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"{path}: quantization_config is malformed: {error!r}.") from None
    if found == {Precision.INT4_WO, Precision.INT8_WO}:
        found = {Precision.INT4_WO}
    precision = next(iter(found)) if len(found) == 1 else None
    if precision is None or not is_kv_plain:
        told = "; ".join(
            f"{weights} with input_activations {inputs}" for weights, inputs in schemes
        )
        raise ConfigError(f"{path}: weights {told} are none of {', '.join(QUANTIZED)}.")
    return QuantConfig(precision, kv_algo, ignore)


def _config(path: Path, algo: Any, kv_algo: str | None, exclude: frozenset[str]) -> QuantConfig:
    """Return the config; `path` names the file in errors."""
    if algo in (None, "none"):
        return QuantConfig(None, kv_algo, exclude)
    if algo not in list(QUANTIZED):
        raise ConfigError(
            f"{path}: quant_algo {algo!r} is not supported; known: {', '.join(QUANTIZED)}."
        )
    return QuantConfig(QUANTIZED[algo], kv_algo, exclude)
