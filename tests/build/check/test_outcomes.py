"""What a check says where it could not be made: never that this machine computes wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nemotrt.build.check.engine import check
from nemotrt.cli import main
from nemotrt.engines.artefact.executed import read_executed
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.errors import ArtefactError, ChildProcessFailedError, EnvironmentUnfitError


def test_a_checkpoint_that_is_none_blames_no_machine(engine: Path) -> None:
    """In text, page and JSON: it was not tried."""
    asked = ["check", str(engine), "--checkpoint", "tiny-dense", "-o", "page.html", "--force"]
    ran, told = (CliRunner().invoke(main, [*asked, *more]) for more in ([], ["--json"]))
    assert ran.exit_code == told.exit_code == 2
    verdict = "Not checked, it could not be tried: open: "
    found = json.loads(told.stdout)
    assert found["outcome"] == "could not be tried" and found["verdict"].startswith(verdict)
    assert [fault["outcome"] for fault in found["faults"]] == ["could not be tried"]
    for text in (ran.stdout, told.stdout, Path("page.html").read_text()):
        assert verdict in text and "does not compute right" not in text
    assert "Please send" not in ran.stderr and not Path("nemotrt-check.json").exists()
    assert read_executed(engine, read_manifest(engine)) is None


ERRORS = (
    (ArtefactError("a file is damaged."), "could not be tried"),
    (PermissionError(13, "Permission denied", "model.safetensors"), "could not be tried"),
    (OSError(28, "No space left on device", "/tmp"), "lacks something"),
    (EnvironmentUnfitError("no GPU."), "lacks something"),
    (MemoryError(), "lacks something"),
)


@pytest.mark.parametrize(
    "call", ["source_of", "open_engine", "run", "_time", "peer_of", "by_engine"]
)
@pytest.mark.parametrize(
    ("error", "outcome"),
    [*ERRORS, (ChildProcessFailedError("a compiler ended with code 1."), "by its stage")],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
@pytest.mark.parametrize("built", ["native"], indirect=True)
def test_only_a_computation_that_fails_says_that_it_computes_wrong(
    call: str, error: Exception, outcome: str, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    if outcome == "by its stage":
        outcome = "computes wrong" if call in ("run", "_time") else "could not be tried"
    monkeypatch.setattr(check, call, fail)
    ran = CliRunner().invoke(main, ["check", str(engine), "--json"])
    found = json.loads(ran.stdout)
    assert found["outcome"] == outcome and found["faults"][0]["what"]
    assert ("does not compute right" in ran.stdout) == (outcome == "computes wrong")
    codes = {"computes wrong": 1, "could not be tried": 2, "lacks something": 3}
    assert ran.exit_code == found["exit_code"] == codes[outcome]
    assert found["faults"][0]["is_lacking"] == (outcome == "lacks something")
