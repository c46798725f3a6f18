"""Which options of `nemotrt quantize` decide nothing in a call: said, not silently dropped."""

from nemotrt.engines.model.numerics import Precision
from nemotrt.quantize.recipes.recipe import Recipe

OF_A_CALIBRATION = ("calibration", "text", "sequences", "sequence-tokens", "clip", "percentile")


def unused_note(
    recipe: Recipe, kv_cache: str, given: set[str], *, is_calibrated: bool, clip: str
) -> str | None:
    """Return a line that names the options in `given` that change nothing, or None.

    Args:
        recipe: what is written.
        kv_cache: the KV cache's type, `none` for 16 bit.
        given: names of options, without dashes, that are not at their defaults.
        is_calibrated: whether a calibration is read.
        clip: where a calibration's scales are cut.
    """
    unused = set()
    if not is_calibrated:
        unused |= given.intersection(OF_A_CALIBRATION)
    if clip != "percentile":
        unused |= given.intersection({"percentile"})
    if not recipe.precision.is_smoothed:
        unused |= given.intersection({"no-fold"})
    if recipe.precision is not Precision.INT4_WO:
        unused |= given.intersection({"group-size"})
    if not unused:
        return None
    what = recipe.name if kv_cache == "none" else f"{recipe.name} with --kv-cache {kv_cache}"
    names = ", ".join(
        f"--{name}" for name in (*OF_A_CALIBRATION, "no-fold", "group-size") if name in unused
    )
    return f"{names}: nothing to do for {what}"
