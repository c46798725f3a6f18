"""`nemotrt plan --calibrate`: a GPU profile whose corrections come from the user's own runs."""

from collections.abc import Sequence
from pathlib import Path

from nemotrt.errors import ConfigError
from nemotrt.profiles.planning.answers.options import DeploymentOptions, resolve_gpu
from nemotrt.profiles.planning.measured.fit import FitResult, fit_corrections
from nemotrt.profiles.planning.measured.profile_results import read_results
from nemotrt.profiles.planning.measured.rows import why_unscorable


def calibrate(paths: Sequence[Path], options: DeploymentOptions) -> FitResult:
    """Return the GPU of `options` with corrections fitted to the runs in `paths`.

    Rows of other GPUs and rows without a load are left out.

    Raises:
        ConfigError: no usable row is left.
    """
    gpu = resolve_gpu(options)
    rows, reasons = [], []
    for path in paths:
        for row in read_results(path, options, gpu):
            reason = why_unscorable(row)
            if not reason and row.gpu not in (options.gpu, gpu.name):
                reason = f"measured on {row.gpu}"
            if reason:
                reasons.append(f"{row.name}: {reason}")
            else:
                rows.append(row)
    if not rows:
        why = "; ".join(reasons[:5]) or "the files hold no rows"
        raise ConfigError(f"nothing to calibrate {gpu.name} on: {why}.")
    source = f"{len(rows)} runs in {', '.join(path.name for path in paths)}"
    return fit_corrections(gpu, rows, source)
