"""`nemotrt demo`, run as a new user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt import demo
from nemotrt.cli import main


@pytest.mark.triton
def test_the_whole_chain(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    command = [sys.executable, "-m", "nemotrt", "demo", "-o", str(output)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    for engine, gpu in (("engine-cpu", None), ("engine-a10g", "a10g"), ("engine-a100", "a100")):
        inspected = CliRunner().invoke(main, ["inspect", str(output / engine), "--json"])
        manifest = json.loads(inspected.stdout)
        assert manifest["gpu"] == gpu
        assert manifest["precision"] == "int8-wo"
        assert manifest["executed"] is (gpu is None)
        assert Path(manifest["checkpoint"]["path"]) == (output / "checkpoint-int8").resolve()
    profile = json.loads((output / "profile" / "result.json").read_text())
    assert profile["schema_version"] == 1
    assert "<svg" in (output / "profile" / "report.html").read_text()
    text = " ".join(re.sub(r"[│┃]", " ", result.stdout).split())
    for title in ("Quantize", "a10g", "a100", "English", "Japanese", "tritonserver", "total"):
        assert title in text
    assert re.search(r"[ぁ-んァ-ン]", result.stdout), "no Japanese was generated"
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_missing_parts_are_named_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemotrt.engines.tensorrt.RTX_MODULE", "no_such_module")
    monkeypatch.setenv("NEMOTRT_TRITON_RUNTIME", str(tmp_path / "nothing"))
    result = CliRunner().invoke(main, ["demo", "-o", str(tmp_path / "demo")])
    assert result.exit_code == 3
    assert "pip install 'nemotrt[rtx]'" in result.stderr
    assert "nemotrt serve install" in result.stderr
    assert not (tmp_path / "demo").exists()
    assert set(demo.PROMPTS) == {"English", "Japanese"}
