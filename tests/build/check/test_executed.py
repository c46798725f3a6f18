"""What a check leaves beside an engine, and where it is shown."""

from html import unescape
from pathlib import Path

from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.artefact.executed import NOT_CHECKED, read_executed
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.profiles.load.targets.opening import open_target
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.reports.page import render
from nemotrt.profiles.runs.measure import run
from nemotrt.profiles.runs.record.identity import differences
from nemotrt.profiles.runs.record.result import ProfileResult


def test_what_was_checked_is_shown_wherever_the_engine_is(engine: Path) -> None:
    """By `build --list`, and by a result of `profile`, of which it is no identity."""

    def listed() -> list[str]:
        lines = CliRunner().invoke(main, ["build", "--list"]).stdout.splitlines()
        return [line for line in lines if line.startswith("checked, ")]

    def profiled() -> ProfileResult:
        load = Workload(isl=4, osl=4, num_requests=2, num_warmup=0)
        return run(open_target("engine", load), load)

    assert listed() == []
    before = profiled()
    assert before.target["checked"] == NOT_CHECKED
    assert CliRunner().invoke(main, ["check", "engine"]).exit_code == 0
    manifest = read_manifest(engine)
    executed, after = read_executed(engine, manifest), profiled()
    assert executed is not None and after.target["checked"] == str(executed)
    name = f"cpu {manifest.precision} {manifest.backend}"
    assert listed() == [f"checked, {name}: {executed} (engine)"]
    assert differences([before, after]) == {}
    assert str(executed) in unescape(render(after))

    (engine / "executed.json").write_text("{}")
    assert listed() == []
    assert str(profiled().target["checked"]).startswith(f"{NOT_CHECKED}: engine/executed.json")
