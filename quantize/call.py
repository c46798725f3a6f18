"""`nemotrt.quantize(...)`: what `nemotrt quantize` does, as a function."""

from collections.abc import Sequence
from pathlib import Path

from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
from nemotrt.engines.checkpoint.lora.merging import MergingOptions, read_merging
from nemotrt.quantize.conversion.options import CalibrationText, QuantizeOptions
from nemotrt.quantize.gpus import choose_format, choose_recipe, wants_gguf
from nemotrt.quantize.writing.gguf.output import check_output, write_output
from nemotrt.quantize.writing.writer import QuantizeResult

DEFAULT_TEXT = CalibrationText()


def quantize(
    checkpoint: str | Path,
    output: str | Path,
    recipe: str | None = None,
    *,
    gpu: str | None = None,
    calibration: str | Path | None = None,
    kv_cache: str = "none",
    lora: Sequence[str | Path] = (),
    force: bool = False,
) -> QuantizeResult:
    """Write a checkpoint quantized; return what was done.

    Args:
        checkpoint: a folder, OWNER/NAME[@REVISION] on the hub, "tiny" or "tiny-dense".
        output: the new folder, or NAME.gguf for llama.cpp; it appears only when it is whole.
        recipe: its name, or a YAML file; default the one for `gpu`.
        gpu: the recipe must run there.
        calibration: a folder with the calibration for static scales; made first if it is not there.
        kv_cache: "none", "fp8" or "int8".
        lora: adapters that are merged before, each DIR or DIR=WEIGHT.
        force: replace the output.

    Raises:
        ConfigError: a name is unknown, the recipe does not fit, or the output is in the way.
        ArtefactError: the checkpoint is damaged.
        EnvironmentUnfitError: the disk is too small, or the checkpoint can't be downloaded.
    """
    chosen, target = choose_recipe(recipe, gpu, kv_cache), Path(output)
    folder = None if calibration is None else Path(calibration)
    options = QuantizeOptions(
        choose_format(None, chosen),
        kv_cache,
        merging=MergingOptions(tuple(read_merging(str(one)) for one in lora)),
        calibration=folder,
        force=force,
        to_gguf=wants_gguf(None, target),
    )
    check_output(target, options)
    source = checkpoint_folder(str(checkpoint), quiet=True)
    if folder is not None:
        from nemotrt.quantize.calibration.calibrate import ensure_calibration

        text = DEFAULT_TEXT
        ensure_calibration(
            source,
            folder,
            text.text,
            text.sequences,
            text.sequence_tokens,
            mergings=options.merging.lora,
            quiet=True,
        )
    return write_output(source, target, chosen, options)
