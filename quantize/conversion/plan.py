"""A checkpoint and a recipe turned into output shards: the whole layout, before any data."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint, shard_paths
from nemotrt.engines.checkpoint.gguf.folder import lone_gguf
from nemotrt.engines.checkpoint.quantized.config import (
    QUANT_CONFIG_FILE,
    flat_quantization,
    read_quant_config,
)
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError
from nemotrt.quantize.conversion.convert import DROPPED_BITS
from nemotrt.quantize.conversion.formats import CheckpointFormat, linear_entries
from nemotrt.quantize.conversion.layout import (
    Entry,
    FilePart,
    Linear,
    Shard,
    literal,
    make_shard,
)
from nemotrt.quantize.recipes.recipe import Recipe
from nemotrt.quantize.recipes.selection import Selection

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Adjustments:
    """What a calibration adds; keys are hub names of modules (without `.weight`) or tensors."""

    input_scales: dict[str, float] = field(default_factory=dict)  # module -> static scale
    columns: dict[str, Floats] = field(default_factory=dict)  # module -> factor an input channel
    rows: dict[str, Floats] = field(default_factory=dict)  # module -> factor a weight scale
    amaxes: dict[str, np.float32] = field(default_factory=dict)  # weight -> its group's largest
    rounded: dict[str, Path] = field(default_factory=dict)  # weight -> its codes, found before
    pre_quant_scales: dict[str, Floats] = field(default_factory=dict)
    tensors: dict[str, bytes] = field(default_factory=dict)  # tensor -> its new bytes
    kv_scales: dict[str, float] = field(default_factory=dict)  # `...k_proj.k_scale` -> scale


def plan_shards(
    checkpoint: Checkpoint,
    selection: Selection,
    recipe: Recipe,
    layout: CheckpointFormat,
    adjustments: Adjustments,
) -> list[Shard]:
    """Return the output shards, one for each of the source's, in order.

    Raises:
        ConfigError: a weight's type can't be converted, or the format can't hold it.
    """
    weights = set(selection.weights)
    by_file: dict[str, list[Entry]] = {}
    for name, ref in sorted(checkpoint.carried().items(), key=lambda item: item[1].offset):
        entries = by_file.setdefault(ref.path.name, [])
        if name in weights:
            linear = _linear(checkpoint, name, recipe, adjustments, name in selection.int8)
            entries += linear_entries(
                linear,
                recipe,
                layout,
                adjustments.input_scales.get(linear.module),
                adjustments.pre_quant_scales.get(linear.module),
            )
        elif name in adjustments.tensors:
            entries.append(Entry(name, ref.dtype, ref.shape, adjustments.tensors[name]))
        else:
            entries.append(Entry(name, ref.dtype, ref.shape, ref))
        entries += _kv_scales(name, layout, adjustments)
    return [make_shard(path, by_file.get(path.name, [])) for path in shard_paths(checkpoint.path)]


def _kv_scales(name: str, layout: CheckpointFormat, adjustments: Adjustments) -> Iterator[Entry]:
    """Yield the cache's scale beside the weight of k_proj or v_proj."""
    module = name.removesuffix(".weight")
    for leaf in ("k_scale", "v_scale"):
        scale = adjustments.kv_scales.get(f"{module}.{leaf}")
        if scale is None or not name.endswith(".weight"):
            continue
        attention = module.rpartition(".")[0]
        place = f"{attention}.{layout.cache_scale(leaf)}"
        yield literal(place, "F32", np.full(layout.one_scale, scale))


def _linear(
    checkpoint: Checkpoint, name: str, recipe: Recipe, adjustments: Adjustments, is_int8: bool
) -> Linear:
    ref = checkpoint[name]
    if ref.dtype not in DROPPED_BITS:
        raise ConfigError(
            f"{name} is {ref.dtype}; weights of {', '.join(DROPPED_BITS)} can be quantized."
        )
    linear = Linear(name, ref, recipe.precision.weights, group_size=recipe.group_size or 0)
    if is_int8:
        linear = Linear(name, ref, Precision.INT8_WO.weights)
    columns = adjustments.columns.get(linear.module, linear.columns)
    rows = adjustments.rows.get(linear.module, linear.rows)
    return replace(
        linear,
        columns=columns,
        rows=rows,
        amax=adjustments.amaxes.get(name),
        rounded=adjustments.rounded.get(name),
    )


def check_plain(folder: Path) -> None:
    """Raise ConfigError if the checkpoint in `folder` is quantized, in any layout, or is GGUF."""
    if lone_gguf(folder):
        raise ConfigError(
            f"{folder} has its weights in GGUF; `nemotrt quantize` reads safetensors: give the "
            "Hugging Face checkpoint that the file was converted from."
        )
    if flat := flat_quantization(folder):
        how = f"config.json says {flat.get('quant_method')}"
    elif title := read_quant_config(folder).title:
        how = f"{QUANT_CONFIG_FILE} says {title}"
    else:
        return
    raise ConfigError(
        f"{folder} is quantized already ({how}); give the 16 bit checkpoint that it came from."
    )


def plan_digest(checkpoint: Checkpoint, shards: Sequence[Shard | FilePart], settings: str) -> str:
    """Return a digest of all that decides the output: source files, layout, factors, settings."""
    digest = hashlib.sha256(f"{checkpoint.fingerprint()}\n{settings}\n".encode())
    for path in shard_paths(checkpoint.path):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    for shard in shards:
        digest.update(shard.header)
        for entry in shard.entries:
            if isinstance(entry.content, bytes):
                digest.update(entry.content)
    return digest.hexdigest()
