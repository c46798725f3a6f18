"""Checks a quantized checkpoint against what the loaders demand, without running one.

Rules: the tensors are the model's and its scales, all of them and no other; both config files
agree; quantized and excluded modules are together all linears, by exact name; every quantized
weight has its scales, of the right type and shape, positive and finite; no NaN code; every channel
reaches the largest code, so no range is wasted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.hub.origin import RECORD_FILE
from nemotrt.engines.checkpoint.quantized.config import (
    QUANT_CONFIG_FILE,
    flat_quantization,
    read_quant_config,
)
from nemotrt.engines.checkpoint.quantized.decoded import DecodedRef
from nemotrt.engines.checkpoint.quantized.scheme import Layout
from nemotrt.engines.checkpoint.stored_head import HEAD
from nemotrt.engines.checkpoint.stored_names import left_out_note
from nemotrt.engines.model.model_config import LayerKind
from nemotrt.engines.model.numerics import KV_CODES
from nemotrt.engines.model.tensor_names import blocks, expected_shapes, linear_names
from nemotrt.errors import ConfigError
from nemotrt.files.text_file import read_json_object
from nemotrt.quantize.contracts.linear_contract import linear_faults, scale_faults
from nemotrt.quantize.contracts.loaders import loader_verdicts, others_verdicts
from nemotrt.quantize.contracts.tensor_contract import is_skipped, tensor_faults
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.conversion.plan import check_plain
from nemotrt.quantize.quality.source_error import compare_with_source
from nemotrt.quantize.reading.quantized_folder import QuantizedFolder, open_folder
from nemotrt.quantize.recipes.selection import split_fused


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a quantized folder is, what is wrong with it, and who loads it."""

    path: Path
    format: Layout
    algo: str  # ModelOpt's word, or what others call it
    num_quantized: int
    num_kept: int
    faults: tuple[str, ...]
    loaders: dict[str, str]
    weight_errors: dict[str, float]  # relative RMS error by module; empty without a source
    notes: tuple[str, ...] = ()  # no faults, but worth knowing


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
    quant = read_quant_config(path)
    if quant.schemes and quant.precision is None:
        return _inspect_others(path, source)
    folder = open_folder(path)
    quantized = [module for module in folder.linears if folder.codes(module) is not None]
    faults = list(_faults(folder))
    errors: dict[str, float] = {}
    if source is not None:
        errors, others = _compare(folder, source, quantized, progress)
        faults += others
    return Inspection(
        path=path,
        format=Layout(folder.layout),
        algo=folder.precision.algo,
        num_quantized=len(quantized),
        num_kept=len(folder.linears) - len(quantized),
        faults=tuple(faults),
        loaders=loader_verdicts(
            folder.layout,
            folder.precision,
            folder.quant.kv_cache_algo,
            folder.model,
            min(folder.quant.group_sizes, default=None),
            is_mixed=len(folder.quant.schemes) > 1,
        ),
        weight_errors=errors,
        notes=_notes(folder),
    )


def _inspect_others(path: Path, source: Path | None) -> Inspection:
    """Return what a checkpoint is whose codes nothing here writes: opening it checks each tensor.

    Raises:
        ConfigError: a source is given: what rounding may do to a weight is another's to say.
    """
    checkpoint = open_checkpoint(path)
    quant, names = checkpoint.quant, linear_names(checkpoint.config)
    if source is not None:
        raise ConfigError(
            f"--source compares what nemotrt quantize can write; {path} is {quant.title}. Compare "
            f"its answers: nemotrt evaluate {path} --against {source}."
        )
    quantized = [name for name in names if isinstance(checkpoint[name], DecodedRef)]
    assert quant.layout is not None  # it has schemes
    return Inspection(
        path=path,
        format=quant.layout,
        algo=quant.title,
        num_quantized=len(quantized),
        num_kept=len(names) - len(quantized),
        faults=(),
        loaders=others_verdicts(quant),
        weight_errors={},
        notes=checkpoint.notes(),
    )


def _notes(folder: QuantizedFolder) -> tuple[str, ...]:
    """Return which files contradict each other, and which tensors loaders pass over."""
    used = {*expected_shapes(folder.model), HEAD}
    note = left_out_note([name for name in folder.tensors if is_skipped(name) and name not in used])
    return (*folder.contradictions, note) if note else folder.contradictions


def _compare(
    folder: QuantizedFolder, source: Path, quantized: list[str], progress: Callable[[int], None]
) -> tuple[dict[str, float], list[str]]:
    """Compare every tensor with the source's."""
    check_plain(source)
    reference = open_checkpoint(source)
    if reference.config != folder.model:
        raise ConfigError(f"{folder.path} is another model than {source}.")
    is_compensated = _is_compensated(folder.path)
    return compare_with_source(
        reference,
        folder.spelled(),
        quantized,
        folder.precision,
        progress,
        is_compensated=is_compensated,
    )


def _is_compensated(path: Path) -> bool:
    """Whether the folder's record says that errors were spread over later inputs."""
    record = path / RECORD_FILE
    return record.is_file() and bool(read_json_object(record).get("compensated"))


def _faults(folder: QuantizedFolder) -> Iterator[str]:
    """Yield each broken rule in one line."""
    if folder.layout is CheckpointFormat.MODELOPT:
        yield from _config_faults(folder)
    yield from tensor_faults(folder)
    yield from _kv_faults(folder)
    if not folder.excludes("lm_head"):
        yield "lm_head is not excluded: loaders would take its 16 bit weight for codes"
    for name in folder.tensors:
        module = name.removesuffix(".weight")
        if module.endswith(".conv1d") and module != name and not folder.excludes(module):
            yield f"{module} is not excluded"
    quantized = {f"{module}.weight" for module in folder.linears if folder.codes(module)}
    yield from split_fused(folder.model, quantized)
    for module in folder.linears:
        codes = folder.codes(module)
        if codes is None:
            if not folder.excludes(module):
                yield f"{module} is neither quantized nor excluded"
            continue
        if folder.excludes(module):
            yield f"{module} is quantized and excluded"
        yield from linear_faults(folder, module, codes)


def _kv_faults(folder: QuantizedFolder) -> Iterator[str]:
    """Yield each broken rule of a quantized KV cache's scales.

    An FP8 cache may have no scales: loaders then take 1. An INT8 cache must have them, and what no
    config speaks of would not be read.
    """
    algo = folder.quant.kv_cache_algo
    if algo is not None and algo not in KV_CODES:
        yield f"the KV cache is {algo}, which is neither FP8 nor INT8"
    for block in blocks(folder.model):
        if block.kind is not LayerKind.ATTENTION:
            continue
        for leaf in ("k_scale", "v_scale"):
            name = block.name(folder.layout.cache_scale(leaf))
            ref = folder.tensors.get(name)
            if ref is None:
                if algo == "INT8":
                    yield f"{name} is missing: an int8 KV cache has no scale without it"
            elif algo is None:
                yield f"{name} is there, but the configs say that the KV cache is not quantized"
            else:
                yield from scale_faults(name, ref, ("F32",), folder.layout.one_scale)


def _config_faults(folder: QuantizedFolder) -> Iterator[str]:
    """Yield where config.json and hf_quant_config.json disagree; engines read one or the other."""
    flat, path = flat_quantization(folder.path), folder.path / QUANT_CONFIG_FILE
    if not flat or not path.is_file():
        return  # one is enough: engines fall back to the other
    other = read_json_object(path)["quantization"]
    if flat.get("quant_method") != "modelopt":
        yield f"config.json: quant_method is {flat.get('quant_method')!r}, not 'modelopt'"
    if flat.get("quant_algo") != other.get("quant_algo"):
        yield f"quant_algo is {flat.get('quant_algo')!r} in one, {other.get('quant_algo')!r}"
    if flat.get("quantized_layers") != other.get("quantized_layers"):
        yield "config.json and hf_quant_config.json name other quantized_layers"
    if set(flat.get("ignore", ())) != set(other.get("exclude_modules", ())):
        yield "config.json's ignore and hf_quant_config.json's exclude_modules differ"
    if bool(flat.get("kv_cache_scheme")) != bool(other.get("kv_cache_quant_algo")):
        yield "only one of the two configs says that the KV cache is quantized"
