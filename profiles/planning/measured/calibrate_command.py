"""`nemotrt plan --calibrate`: corrections that are fitted to runs, and what they are worth."""

import json
from pathlib import Path

import click

from nemotrt.files.writing import check_file, write_file
from nemotrt.profiles.planning.answers.options import DeploymentOptions


def calibrate_and_tell(
    options: DeploymentOptions,
    results: tuple[Path, ...],
    output: Path | None,
    *,
    as_json: bool,
    dry_run: bool,
    force: bool,
) -> None:
    """Fit, write the profile, and say how far the rows were off before and after."""
    from nemotrt.profiles.hardware.gpu_profile import profile_yaml
    from nemotrt.profiles.planning.measured.calibration import calibrate

    if output is None:
        raise click.UsageError("--calibrate needs --output FILE.yaml.")
    if not dry_run:
        check_file(output, force=force)
    fitted = calibrate(results, options)
    if not dry_run:
        write_file(output, profile_yaml(fitted.gpu), force=force)
    summary = {
        "schema_version": 1,
        "gpu": fitted.gpu.name,
        "num_rows": fitted.num_rows,
        "mape_before": fitted.mape_before,
        "mape_after": fitted.mape_after,
        "output": None if dry_run else str(output),
    }
    if as_json:
        click.echo(json.dumps(summary, allow_nan=False, indent=2))
        return
    click.echo(
        f"{fitted.gpu.name}: {fitted.num_rows} rows, mean error {fitted.mape_before:.1%} before, "
        f"{fitted.mape_after:.1%} after."
    )
