"""Checks a quantized checkpoint against what the loaders demand, without running one.

Rules: both config files agree; quantized and excluded modules are together all linears, by exact
name; every quantized weight has its scales, of the right type and shape, positive and finite; no
NaN code; every channel reaches the largest code, so no range is wasted.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint import ALIASES, open_checkpoint, shard_paths
from nemotrt.engines.hf_config import read_model_config
from nemotrt.engines.model_config import ModelConfig
from nemotrt.engines.quant_config import (
    QUANT_CONFIG_FILE,
    QuantAlgo,
    QuantConfig,
    flat_quantization,
    read_quant_config,
)
from nemotrt.engines.safetensors_file import TensorRef, read_header
from nemotrt.engines.tensor_names import linear_names
from nemotrt.errors import ConfigError
from nemotrt.quantize.compressed import read_compressed_config
from nemotrt.quantize.formats import Format
from nemotrt.quantize.kv_contract import kv_faults
from nemotrt.quantize.loaders import loader_verdicts
from nemotrt.quantize.plan import check_plain
from nemotrt.quantize.source_error import Compared, compare_with_source

E4M3_MAX_CODE, E4M3_NAN = 0x7E, 0x7F
CHUNK_ROWS = 512


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a quantized folder is, what is wrong with it, and who loads it."""

    path: Path
    format: Format
    algo: QuantAlgo
    num_quantized: int
    num_kept: int
    faults: tuple[str, ...]
    loaders: dict[str, str]
    weight_errors: dict[str, float]  # relative RMS error by module; empty without a source


@dataclass(frozen=True, slots=True)
class _Folder:
    """The parts of a quantized folder that the checks read."""

    path: Path
    model: ModelConfig
    layout: Format
    quant: QuantConfig
    tensors: dict[str, TensorRef]
    linears: list[str]

    @property
    def algo(self) -> QuantAlgo:
        """How the linears are stored."""
        return self.quant.algo

    @property
    def exclude(self) -> frozenset[str]:
        """Exact names of the modules that are not quantized."""
        return self.quant.exclude

    def codes(self, module: str) -> TensorRef | None:
        """Return where the codes of `module` are, or None if it is not quantized."""
        for leaf in ("weight_packed", "weight"):
            ref = self.tensors.get(f"{module}.{leaf}")
            if ref is not None and not ref.is_float:
                return ref
        return None


def inspect_quantized(
    path: Path,
    source: Path | None = None,
    progress: Callable[[int], None] = lambda num_modules: None,
) -> Inspection:
    """Return the inspection of the quantized checkpoint in folder `path`.

    With `source`, the 16 bit checkpoint that it came from, every tensor is compared with it;
    `progress` is told of each linear done.

    Raises:
        ConfigError: the checkpoint is not quantized, or the source is, or is of another model.
        ArtefactError: a file is missing or damaged.
    """
    folder = _open(path)
    quantized = [module for module in folder.linears if folder.codes(module) is not None]
    faults, errors = list(_faults(folder)), {}
    if source is not None:
        compared = _compare(folder, source, quantized, progress)
        errors = compared.weight_errors
        faults += compared.faults
    return Inspection(
        path=path,
        format=folder.layout,
        algo=folder.algo,
        num_quantized=len(quantized),
        num_kept=len(folder.linears) - len(quantized),
        faults=tuple(faults),
        loaders=loader_verdicts(folder.layout, folder.quant, folder.model),
        weight_errors=errors,
    )


def _compare(
    folder: _Folder, source: Path, quantized: list[str], progress: Callable[[int], None]
) -> Compared:
    """Compare every tensor with the source's."""
    check_plain(source)
    reference = open_checkpoint(source)
    if reference.config != read_model_config(folder.path):
        raise ConfigError(f"{folder.path} is another model than {source}.")
    return compare_with_source(reference, folder.tensors, quantized, folder.algo, progress)


def _open(path: Path) -> _Folder:
    model = read_model_config(path)
    flat = flat_quantization(path)
    if flat is None:
        raise ConfigError(f"{path} is not quantized: config.json has no quantization_config.")
    tensors = {
        ALIASES.get(name, name): ref
        for shard in shard_paths(path)
        for name, ref in read_header(shard)[0].items()
    }
    linears = [name.removesuffix(".weight") for name in linear_names(model)]
    if flat.get("quant_method") == Format.COMPRESSED_TENSORS:
        layout, quant = Format.COMPRESSED_TENSORS, read_compressed_config(path, flat)
    else:
        layout, quant = Format.MODELOPT, read_quant_config(path)
    if quant.algo is QuantAlgo.NONE:
        raise ConfigError(f"{path} has no {QUANT_CONFIG_FILE}, or it names no algorithm.")
    return _Folder(path, model, layout, quant, tensors, linears)


def _faults(folder: _Folder) -> Iterator[str]:
    """Yield each broken rule in one line."""
    if folder.layout is Format.MODELOPT:
        yield from _config_faults(folder)
    yield from kv_faults(folder.model, folder.layout, folder.quant.kv_cache_algo, folder.tensors)
    if "lm_head" not in folder.exclude:
        yield "lm_head is not excluded: loaders would take its 16 bit weight for codes"
    for name in folder.tensors:
        module = name.removesuffix(".weight")
        if module.endswith(".conv1d") and module != name and module not in folder.exclude:
            yield f"{module} is not excluded"
    for module in folder.linears:
        codes = folder.codes(module)
        if codes is None:
            if module not in folder.exclude:
                yield f"{module} is neither quantized nor excluded"
            continue
        if module in folder.exclude:
            yield f"{module} is quantized and excluded"
        yield from _linear_faults(folder, module, codes)


def _config_faults(folder: _Folder) -> Iterator[str]:
    """Yield where config.json and hf_quant_config.json disagree; engines read one or the other."""
    config = json.loads((folder.path / "config.json").read_text(encoding="utf-8"))
    nested = json.loads((folder.path / QUANT_CONFIG_FILE).read_text(encoding="utf-8"))
    flat, other = config["quantization_config"], nested["quantization"]
    if flat.get("quant_method") != "modelopt":
        yield f"config.json: quant_method is {flat.get('quant_method')!r}, not 'modelopt'"
    if flat.get("quant_algo") != other.get("quant_algo"):
        yield f"quant_algo is {flat.get('quant_algo')!r} in one, {other.get('quant_algo')!r}"
    if set(flat.get("ignore", ())) != set(other.get("exclude_modules", ())):
        yield "config.json's ignore and hf_quant_config.json's exclude_modules differ"
    if bool(flat.get("kv_cache_scheme")) != bool(other.get("kv_cache_quant_algo")):
        yield "only one of the two configs says that the KV cache is quantized"
    if any(sign in name for name in folder.exclude for sign in "*?["):
        yield "the exclusion list has patterns; only exact names mean the same to every loader"


def _linear_faults(folder: _Folder, module: str, codes: TensorRef) -> Iterator[str]:
    """Yield what is wrong with one quantized linear."""
    rows = codes.shape[0]
    per_tensor = folder.algo is QuantAlgo.FP8
    is_modelopt = folder.layout is Format.MODELOPT
    expected: tuple[int, ...] = () if per_tensor else (rows,)
    if not is_modelopt:
        expected = (1,) if per_tensor else (rows, 1)
    wanted = {"weight_scale": expected}
    if folder.algo in (QuantAlgo.FP8, QuantAlgo.INT8_SMOOTHQUANT):
        wanted["input_scale"] = () if is_modelopt else (1,)
    for leaf, shape in wanted.items():
        ref = folder.tensors.get(f"{module}.{leaf}")
        if ref is None:
            yield f"{module}.{leaf} is missing"
        elif ref.dtype != "F32" or ref.shape != shape:
            yield f"{module}.{leaf} is {ref.dtype} {list(ref.shape)}, expected F32 {list(shape)}"
        elif not (np.isfinite(values := ref.map()).all() and (values > 0).all()):
            yield f"{module}.{leaf} holds a value that is not positive and finite"
    scale = folder.tensors.get(f"{module}.weight_scale")
    if scale is not None:
        yield from _code_faults(module, codes, scale)


def _code_faults(module: str, codes: TensorRef, scale: TensorRef) -> Iterator[str]:
    """Yield NaN codes, and channels whose largest code is not the format's."""
    largest, is_fp8 = _row_maxima(codes), codes.dtype == "F8_E4M3"
    if is_fp8 and (largest == E4M3_NAN).any():
        yield f"{module} has NaN codes"
        return
    if scale.num_bytes == 4:
        largest = largest.max(initial=0, keepdims=True)
    full = E4M3_MAX_CODE if is_fp8 else 127
    values = scale.map().reshape(-1)
    if largest.size != values.size:
        return
    # A scale at the bottom of float32's or float16's range is clamped: its codes stay small.
    wasted = (largest != full) & (largest != 0) & (values > np.float32(6.2e-5 / 127))
    if wasted.any():
        row = int(np.flatnonzero(wasted)[0])
        yield f"{module}, channel {row}: the largest code is {int(largest[row])}, not {full}"


def _row_maxima(codes: TensorRef) -> npt.NDArray[np.uint8]:
    """Return the largest magnitude code of each row; E4M3 magnitudes are ordered as bytes."""
    raw = codes.map().view(np.uint8)
    result = np.empty(codes.shape[0], np.uint8)
    for begin in range(0, codes.shape[0], CHUNK_ROWS):
        part = np.asarray(raw[begin : begin + CHUNK_ROWS])
        if codes.dtype == "F8_E4M3":
            size = part & 0x7F
        else:
            signed = (part ^ 0x80 if codes.dtype == "I32" else part).view(np.int8)
            size = np.abs(signed.astype(np.int16)).astype(np.uint8)
        result[begin : begin + CHUNK_ROWS] = size.max(axis=1, initial=0)
    return result
