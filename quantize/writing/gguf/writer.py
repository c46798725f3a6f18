"""A GGUF file from a 16 bit checkpoint, streamed as the folders of other formats are."""

import time
from importlib.metadata import version
from pathlib import Path

from nemotrt.engines.checkpoint.gguf.config import config_of
from nemotrt.engines.checkpoint.gguf.file import SUFFIX, read_gguf
from nemotrt.engines.checkpoint.lora.merged import open_merged
from nemotrt.engines.checkpoint.quantized.config import flat_config
from nemotrt.engines.checkpoint.quantized.scheme import Layout
from nemotrt.engines.text.chat.whole import check_carried
from nemotrt.errors import ConfigError
from nemotrt.quantize.contracts.loaders import others_verdicts
from nemotrt.quantize.conversion.layout import FilePart
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.conversion.plan import check_plain, plan_digest
from nemotrt.quantize.recipes.recipe import Recipe
from nemotrt.quantize.recipes.selection import Selection, select
from nemotrt.quantize.writing.gguf.plan import KINDS, WIDE, check_recipe, plan_file
from nemotrt.quantize.writing.partial import filling_folder
from nemotrt.quantize.writing.shard import Progress
from nemotrt.quantize.writing.writer import (
    QuantizeResult,
    check_apart,
    check_disk,
    source_bytes,
    write_shards,
)

NO_TOKENIZER = "the checkpoint has no tokenizer.json: the file takes token ids alone"


def plan_gguf(
    source: Path, target: Path, recipe: Recipe, options: QuantizeOptions
) -> tuple[list[FilePart], Selection, str]:
    """Return what each shard of the source gives to the file, what is quantized, and a digest.

    Raises:
        ConfigError: a GGUF file has no place for the recipe, the model or its tokenizer, or
            `target` has another suffix.
        ArtefactError: the source is damaged.
    """
    if target.suffix != SUFFIX:
        raise ConfigError(f"--format gguf writes one file: give -o {target}{SUFFIX}.")
    check_recipe(recipe, options)
    check_plain(source)
    check_carried(source)
    checkpoint = open_merged(source, options.merging.lora)
    selection = select(
        checkpoint.config, recipe, keep_feeders=options.keep_feeders, int8=options.int8
    )
    parts = plan_file(checkpoint, selection, recipe, target, options.rounded)
    settings = f"{version('nemotrt')} gguf {recipe} compensate={options.compensate} "
    settings += f"drawn={options.drawn}"
    return parts, selection, plan_digest(checkpoint, parts, settings)


def quantize_to_gguf(
    source: Path,
    target: Path,
    recipe: Recipe,
    options: QuantizeOptions,
    *,
    progress: Progress = lambda num_bytes: None,
) -> QuantizeResult:
    """Write the checkpoint in folder `source`, quantized by `recipe`, to the new file `target`.

    Raises:
        ArtefactError: the source is damaged, or a weight holds NaN or infinity.
        ConfigError: a GGUF file can't hold it, or `target` is in the way.
        EnvironmentUnfitError: the disk is too small.
    """
    begin = time.perf_counter()
    check_apart(target, source, options)
    parts, selection, digest = plan_gguf(source, target, recipe, options)
    how = {"force": options.force, "resume": options.resume, "sync": options.sync}
    with filling_folder(target, digest, is_file=True, **how) as partial:
        check_disk(partial, parts)
        write_shards(source, partial, parts, progress)
    checkpoint = open_merged(source, options.merging.lora)
    quant = flat_config(config_of(read_gguf(target))["quantization_config"], str(target))
    has_tokenizer = (source / "tokenizer.json").is_file()
    return QuantizeResult(
        target=target,
        recipe=recipe.name,
        quant_algo=f"GGUF {KINDS[recipe.precision][0]}"
        + (f", {len(selection.int8)} of them {WIDE}" if selection.is_mixed else ""),
        format=Layout.GGUF.value,
        num_linears=len(selection.weights),
        num_shards=1,
        source_bytes=source_bytes(source),
        target_bytes=parts[0].num_bytes,
        seconds=time.perf_counter() - begin,
        loaders=others_verdicts(quant),
        notes=(*checkpoint.notes(), *(() if has_tokenizer else (NO_TOKENIZER,))),
    )
