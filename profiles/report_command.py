"""`nemotrt profile report`: parse, call, print."""

from pathlib import Path

import click

from nemotrt.commandline.kinds import PATH
from nemotrt.commandline.shared import force_option, output_option
from nemotrt.files.writing import check_file


@click.command()
@click.argument("runs", nargs=-1, required=True, type=PATH)
@output_option("HTML file.  [default: in the run's folder]")
@force_option
def report(runs: tuple[Path, ...], output: Path | None, force: bool) -> None:
    """Rebuild the page of one run or sweep, or set several side by side.

    RUNS are folders of runs or sweeps, a killed run's .partial folder, or results of AIPerf and
    `vllm bench serve`.
    """
    from nemotrt.profiles.reports.comparison import write_comparison
    from nemotrt.profiles.reports.page import write_html
    from nemotrt.profiles.runs.run_folder import REPORT_FILE, read_runs

    results = [result for path in runs for result in read_runs(path)]
    if output is None and len(runs) == 1:  # a run's own page is made anew
        output = (runs[0] if runs[0].is_dir() else runs[0].parent) / REPORT_FILE
    else:
        output = output or Path(REPORT_FILE)
        check_file(output, force=force)
    if len(results) == 1:
        write_html(results[0], output)
    else:
        write_comparison(results, output)
    click.echo(output)
