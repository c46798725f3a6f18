"""A quantized checkpoint from a 16 bit one, streamed: constant memory, at the speed of the disk."""

import json
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from nemotrt.engines.checkpoint.checkpoint import shard_paths
from nemotrt.engines.checkpoint.hub.origin import RECORD_FILE, origin_of
from nemotrt.engines.checkpoint.lora.merged import open_merged
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.text.chat.whole import check_carried
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.files.writing import real
from nemotrt.progress import readable_size
from nemotrt.quantize.calibration.calibration import load_calibration
from nemotrt.quantize.contracts.loaders import loader_verdicts
from nemotrt.quantize.conversion.formats import check_unfolded
from nemotrt.quantize.conversion.layout import FilePart, Shard
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.conversion.plan import Adjustments, check_plain, plan_digest, plan_shards
from nemotrt.quantize.recipes.recipe import Recipe
from nemotrt.quantize.recipes.selection import Selection, select
from nemotrt.quantize.scales.adjust import adjust
from nemotrt.quantize.scales.amax import num_threads
from nemotrt.quantize.writing.carry import carry_files, write_index
from nemotrt.quantize.writing.configs import write_configs
from nemotrt.quantize.writing.partial import Partial, filling_folder
from nemotrt.quantize.writing.shard import Progress, is_shard_whole, write_shard

COPIED = "copied as they are"
BLOCK_BYTES = 512  # of st_blocks, whatever the filesystem's own; Source: stat(2)


@dataclass(frozen=True, slots=True)
class QuantizeResult:
    """What was written.

    Attributes:
        target: the new folder, or the GGUF file.
        recipe: its name.
        quant_algo: the algorithm, in the words of the format: "W8A8_SQ_PER_CHANNEL", "FP8", ...
        format: "modelopt", "compressed-tensors" or "gguf".
        num_linears: linear layers that were quantized.
        num_shards: files with weights.
        source_bytes: bytes of the weight files that were read.
        target_bytes: bytes of the weight files that were written.
        seconds: from the first read to the last write.
        loaders: engine -> "yes..." or "no..." with the reason, for each that might load it.
        notes: about the source: contradictions, and tensors that are not the model's.
    """

    target: Path
    recipe: str
    quant_algo: str
    format: str
    num_linears: int
    num_shards: int
    source_bytes: int
    target_bytes: int
    seconds: float
    loaders: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def gb_per_s(self) -> float:
        """Source bytes per second, in GB."""
        return self.source_bytes / self.seconds / 1e9


DEFAULT_OPTIONS = QuantizeOptions()


def quantize_checkpoint(
    source: Path,
    target: Path,
    recipe: Recipe,
    options: QuantizeOptions = DEFAULT_OPTIONS,
    *,
    progress: Progress = lambda num_bytes: None,
) -> QuantizeResult:
    """Write the checkpoint in folder `source`, quantized by `recipe`, to the new folder `target`.

    Raises:
        ArtefactError: the source is damaged, or a weight holds NaN or infinity.
        ConfigError: the recipe doesn't fit the model, or `target` is in the way, or holds the
            source.
        EnvironmentUnfitError: the disk is too small.
    """
    begin = time.perf_counter()
    check_apart(target, source, options)
    shards, selection, digest = plan(source, recipe, options, progress=progress)
    kv_algo = None if options.kv_cache == "none" else options.kv_cache.upper()
    how = {"force": options.force, "resume": options.resume, "sync": options.sync}
    with filling_folder(target, digest, **how) as partial:
        check_disk(partial, shards)
        write_shards(source, partial, shards, progress)
        write_index(partial.path, source, shards)
        carry_files(source, partial.path)
        checkpoint = open_merged(source, options.merging.lora)
        write_configs(checkpoint, partial.path, recipe, options.layout, selection, options.kv_cache)
        _write_record(partial.path, source, recipe, options)
    return QuantizeResult(
        target=target,
        recipe=recipe.name,
        quant_algo=f"{recipe.algo}, {len(selection.int8)} of them {Precision.INT8_WO.algo}"
        if selection.is_mixed
        else recipe.algo,
        format=options.layout.value,
        num_linears=len(selection.weights),
        num_shards=len(shards),
        source_bytes=source_bytes(source),
        target_bytes=sum(shard.num_bytes for shard in shards),
        seconds=time.perf_counter() - begin,
        loaders=loader_verdicts(
            options.layout,
            recipe.precision,
            kv_algo,
            checkpoint.config,
            recipe.group_size,
            is_mixed=selection.is_mixed,
        ),
        notes=checkpoint.notes(COPIED),
    )


def plan(
    source: Path,
    recipe: Recipe,
    options: QuantizeOptions,
    *,
    is_calibrated: bool = True,
    progress: Progress = lambda num_bytes: None,
) -> tuple[list[Shard], Selection, str]:
    """Return the output's shards, what is quantized, and the digest of the whole plan.

    Without its calibration the plan lacks static scales and smoothing; it can't be written then.
    """
    check_plain(source)
    check_carried(source)
    if recipe.precision.is_smoothed and not options.calibration_options.fold:
        check_unfolded(options.layout)
    checkpoint = open_merged(source, options.merging.lora)
    selection = select(
        checkpoint.config, recipe, keep_feeders=options.keep_feeders, int8=options.int8
    )
    adjustments = Adjustments()
    if is_calibrated:
        calibration, how = None, options.calibration_options
        if options.calibration is not None:
            calibration = load_calibration(options.calibration, source, options.merging.lora)
        adjustments = adjust(
            checkpoint, selection, recipe, options.kv_cache, calibration, how, progress
        )
    if options.rounded:
        adjustments = replace(adjustments, rounded=dict(options.rounded))
    shards = plan_shards(checkpoint, selection, recipe, options.layout, adjustments)
    settings = f"{version('nemotrt')} {recipe} {options.layout} {options.kv_cache} "
    settings += f"compensate={options.compensate} drawn={options.drawn}"
    return shards, selection, plan_digest(checkpoint, shards, settings)


def write_shards(
    source: Path, partial: Partial, shards: Sequence[Shard | FilePart], progress: Progress
) -> None:
    """Write each shard that is not whole yet."""
    with ThreadPoolExecutor(num_threads()) as pool:
        for path, shard in zip(shard_paths(source), shards, strict=True):
            output = partial.path / shard.target_name
            if shard.file_name in partial.finished and is_shard_whole(
                path, output, shard, pool, progress
            ):
                continue
            write_shard(path, output, shard, pool, progress)
            partial.mark_finished(shard.file_name)


def source_bytes(source: Path) -> int:
    """Return the size of the checkpoint's weights."""
    return sum(path.stat().st_size for path in shard_paths(source))


def work_bytes(source: Path, recipe: Recipe, options: QuantizeOptions) -> int:
    """Return how many bytes a run tells its progress: SmoothQuant reads the weights twice."""
    total = source_bytes(source)
    if recipe.precision.is_smoothed:
        checkpoint = open_merged(source)
        selection = select(checkpoint.config, recipe, keep_feeders=options.keep_feeders)
        total += sum(checkpoint[name].num_bytes for name in selection.weights)
    return total


def check_apart(target: Path, source: Path, options: QuantizeOptions) -> None:
    """Raise if replacing `target` would remove what is read."""
    folder = real(target)
    if folder == real(source):
        raise ConfigError(f"the output is the checkpoint itself: {target}.")
    for path in (source, options.calibration, *(one.path for one in options.merging.lora)):
        if path is not None and real(path).is_relative_to(folder):
            raise ConfigError(f"the output {target} holds {path}, which is read; give another.")


def check_disk(partial: Partial, shards: Sequence[Shard | FilePart]) -> None:
    """Raise before the work if what is still to be written can't fit."""
    unfinished = (shard for shard in shards if shard.file_name not in partial.finished)
    sizes = {shard.target_name: shard.num_bytes for shard in unfinished}
    need = 0
    for name, num_bytes in sizes.items():
        path = partial.path / name
        there = BLOCK_BYTES * path.stat().st_blocks if path.is_file() else 0
        need += max(0, num_bytes - there)
    free = shutil.disk_usage(partial.path).free
    if need > free:
        kept = "; what is finished is kept for --resume" if partial.finished else ""
        raise EnvironmentUnfitError(
            f"the output needs {readable_size(need)} more, the disk of {partial.path.parent} has "
            f"{readable_size(free)} free{kept}."
        )


def _write_record(folder: Path, source: Path, recipe: Recipe, options: QuantizeOptions) -> None:
    """Save the resolved configuration, and where the weights came from, beside the weights."""
    origin = origin_of(source)
    record = {
        "schema_version": 1,
        "nemotrt_version": version("nemotrt"),
        "origin": origin.model_dump() if origin else None,
        "recipe": {"name": recipe.name} | recipe.model_dump(),
        "format": options.layout.value,
        "kv_cache": options.kv_cache,
        "keep_feeders": options.keep_feeders,
        "int8": sorted(options.int8),
        "compensated": bool(options.rounded),
        "lora": [str(one) for one in options.merging.lora],
        "settings": options.settings,
        "calibration": asdict(options.calibration_options) if options.calibration else None,
    }
    text = json.dumps(record, indent=2) + "\n"
    (folder / RECORD_FILE).write_text(text, encoding="utf-8")
