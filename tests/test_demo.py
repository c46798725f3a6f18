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

KEYS = " a-key-of-mine, another"


@pytest.mark.triton
@pytest.mark.parametrize("keys", [KEYS, pytest.param("", marks=pytest.mark.slow)])
def test_the_whole_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    """With the user's API keys in the environment, which its own server then has; and without."""
    monkeypatch.setenv("NEMOTRT_API_KEYS", keys)
    if not keys:
        monkeypatch.delenv("NEMOTRT_API_KEYS")
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
    written = (output / "profile" / "result.json").read_text()
    profile = json.loads(written)
    assert profile["schema_version"] == 1 and profile["status"] == "complete"
    assert profile["target"]["address"].startswith("http://127.0.0.1:")
    assert "a-key-of-mine" not in written + result.stdout + result.stderr
    assert "<svg" in (output / "profile" / "report.html").read_text()
    text = " ".join(re.sub(r"[│┃]", " ", result.stdout).split())
    for title in ("Quantize", "a10g", "a100", "English", "Japanese", "tritonserver", "total"):
        assert title in text
    assert re.search(r"[ぁ-んァ-ン]+.*。", result.stdout), "no Japanese sentence was generated"
    for page in re.findall(r"^  (\S+\.html)$", result.stdout, re.MULTILINE):
        assert "<svg" in Path(page).read_text()
    assert result.stdout.count(".html\n") == 2 and "5.7 million parameters" in result.stdout
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 2
    assert "--force" in again.stderr


def test_missing_parts_are_named_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "nemotrt.engines.backends.tensorrt.compile.flavour.RTX_MODULE", "no_such_module"
    )
    monkeypatch.setenv("NEMOTRT_TRITON_RUNTIME", str(tmp_path / "nothing"))
    result = CliRunner().invoke(main, ["demo", "-o", str(tmp_path / "demo")])
    assert result.exit_code == 3
    assert "pip install 'nemotrt[rtx]'" in result.stderr
    assert "nemotrt serve install" in result.stderr
    assert not (tmp_path / "demo").exists()
    assert set(demo.PROMPTS) == {"English", "Japanese"}
