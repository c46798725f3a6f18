"""`nemotrt.quantize(...)`: what `nemotrt quantize` does, as a function."""

from collections.abc import Sequence
from pathlib import Path

from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
from nemotrt.engines.checkpoint.lora.merging import MergingOptions, read_merging
from nemotrt.files.writing import check_target
from nemotrt.quantize.conversion.options import CalibrationText, QuantizeOptions
from nemotrt.quantize.gpus import choose_format, choose_recipe
from nemotrt.quantize.writing.writer import QuantizeResult, quantize_checkpoint

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
        output: the new folder; it appears only when it is whole.
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
    layout = choose_format(None, chosen)
    merging = MergingOptions(tuple(read_merging(str(one)) for one in lora))
    options = QuantizeOptions(layout, kv_cache, merging=merging, calibration=folder, force=force)
    check_target(target, force=force)
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
            mergings=merging.lora,
            quiet=True,
        )
    return quantize_checkpoint(source, target, chosen, options)
