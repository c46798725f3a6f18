"""`nemotrt quantize` as a user runs it."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nemotrt.cli import main
from nemotrt.quantize.contracts.contract import inspect_quantized
from nemotrt.quantize.recipes.recipe import recipe_names


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["quantize", *map(str, arguments)])


def test_help() -> None:
    result = run("--help")
    assert result.exit_code == 0
    assert "int8-wo" in result.output and "a10g" in result.output


def test_a_recipe_that_does_not_fit_shows_before_the_calibration(
    checkpoint: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "{description: x, algo: FP8, min_compute_capability: 8.9, quantize: {nemotron_h: {}}}"
    )
    arguments = ["--recipe", recipe, "--calibration", tmp_path / "c", "-o", tmp_path / "out"]
    result = run(checkpoint, *arguments)
    assert result.exit_code == 2 and "says neither quantize nor keep" in result.stderr
    assert list(tmp_path.iterdir()) == [recipe]


def test_recipes_are_described() -> None:
    result = run("--list-recipes")
    assert result.exit_code == 0
    for name in recipe_names():
        assert f"\n{name}: " in "\n" + result.stdout
    assert "fp8: FP8, compute capability 8.9 or later, a calibration" in result.stdout
    assert "nemotron_h keeps attention q_proj k_proj v_proj o_proj" in result.stdout
    files = [Path(line.strip()) for line in result.stdout.splitlines() if line.endswith(".yaml")]
    assert len(files) == len(recipe_names()) and all(path.is_file() for path in files)


def test_a_run_prints_one_line(checkpoint: Path, tmp_path: Path) -> None:
    result = run(checkpoint, "--gpu", "a10g", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "W8A16" in result.stdout and result.stdout.count("\n") == 1
    record = json.loads((tmp_path / "out/nemotrt_quantize.json").read_text())
    assert record["recipe"]["name"] == "int8-wo" and record["schema_version"] == 1


def test_it_says_who_loads_it(checkpoint: Path, tmp_path: Path) -> None:
    arguments = [checkpoint, "--recipe", "int8-wo", "-o", tmp_path / "out"]
    result = run(*arguments)
    assert "loads in nemotrt build, TensorRT-LLM (PyTorch); not in vLLM" in result.stderr
    loaders = json.loads(run(*arguments, "--force", "--json").stdout)["loaders"]
    assert loaders == inspect_quantized(tmp_path / "out").loaders
    assert run(*arguments, "--force", "--quiet").output == ""


def test_options_that_decide_nothing_are_said(checkpoint: Path, tmp_path: Path) -> None:
    arguments = [checkpoint, "--recipe", "int8-wo", "-o", tmp_path / "out"]
    assert "nothing to do" not in run(*arguments).stderr
    more = ["--force", "--clip", "mse", "--percentile", 99, "--no-fold", "--sequences", 3]
    note = "--sequences, --clip, --percentile, --no-fold: nothing to do for int8-wo\n"
    assert run(*arguments, *more).stderr.startswith(note)
    record = json.loads((tmp_path / "out/nemotrt_quantize.json").read_text())
    (tmp_path / "again.yaml").write_text(json.dumps(record["settings"] | {"clip": "amax"}))
    result = run(checkpoint, "--config", tmp_path / "again.yaml", "-o", tmp_path / "again")
    assert result.stderr.startswith("--sequences, --percentile, --no-fold: nothing")
    static = ["--recipe", "fp8", "--calibration", tmp_path / "c", "-o", tmp_path / "fp8"]
    static += ["--sequences", 1, "--sequence-tokens", 8, "--percentile", 99]
    assert run("tiny", *static).stderr.startswith("--percentile: nothing to do for fp8\n")


def test_keep_attention_feeders(checkpoint: Path, tmp_path: Path) -> None:
    """M-MM*-: the Mamba layer 3 feeds attention; it stays, and both configs say so."""
    arguments = [checkpoint, "--recipe", "fp8-dynamic", "--keep", "attention-feeders"]
    assert run(*arguments, "-o", tmp_path / "out").exit_code == 0
    kept = {f"backbone.layers.3.mixer.{leaf}" for leaf in ("in_proj", "out_proj", "conv1d")}
    nested = json.loads((tmp_path / "out/hf_quant_config.json").read_text())["quantization"]
    assert kept <= set(nested["exclude_modules"])
    assert "backbone.layers.2.mixer.in_proj" not in nested["exclude_modules"]
    assert inspect_quantized(tmp_path / "out", checkpoint).faults == ()


def test_json(checkpoint: Path, tmp_path: Path) -> None:
    result = run(checkpoint, "--recipe", "fp8-dynamic", "-o", tmp_path / "out", "--json")
    value = json.loads(result.stdout)
    assert value["schema_version"] == 1
    assert value["quant_algo"] == "FP8_PER_CHANNEL_PER_TOKEN"
    assert value["target_bytes"] < value["source_bytes"]


def test_dry_run_writes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    result = run(checkpoint, "--recipe", "int8-wo", "-o", tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    assert "quantize backbone.layers.0.mixer.in_proj.weight" in result.stdout
    assert "keep     lm_head" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_needs_no_calibration_yet(checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--recipe", "fp8", "--calibration", tmp_path / "c", "-o", tmp_path / "out"]
    result = run(checkpoint, *arguments, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "it would be calibrated first" in result.stderr
    assert "quantize backbone.layers.0.mixer.in_proj.weight" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--gpu", "a10g", "--recipe", "fp8"], 2, "no FP8 tensor cores"),
        (["--gpu", "a100", "--kv-cache", "fp8"], 2, "--kv-cache fp8 needs"),
        (["--recipe", "int4"], 2, "unknown recipe 'int4'"),
        (["--recipe", "int8-wo", "--format", "npz"], 2, "unknown format 'npz'"),
        (
            ["--recipe=int8-sq", "--no-fold", "--format=compressed-tensors", "--calibration=new"],
            2,
            "no place for pre_quant_scale",  # and no calibration was made first
        ),
        ([], 2, "--recipe, or --gpu"),
    ],
)
def test_refusals(
    checkpoint: Path, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    result = run(checkpoint, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == code
    assert message in result.stderr and "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_an_output_where_no_folder_can_be(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    below = tmp_path / "file/out"
    message = f"a folder can't be made in {tmp_path / 'file'}: Not a directory"
    result = run(checkpoint, "--recipe", "int8-wo", "-o", below)
    assert result.exit_code == 3 and message in result.stderr
    few = ["--sequences", 1, "--sequence-tokens", 8]
    result = run("tiny", "--recipe", "fp8", "--calibration", below, "-o", tmp_path / "out", *few)
    assert result.exit_code == 3 and message in result.stderr


def test_an_output_that_links_to_nothing_shows_before_the_work(
    checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").symlink_to("nowhere")
    result = run(checkpoint, "--recipe", "int8-wo", "-o", tmp_path / "out", "--force")
    assert result.exit_code == 2 and "is a link to nothing" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_disk_that_fills_up_in_the_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *arguments: object, **named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    arguments = ["--recipe", "fp8", "--calibration", tmp_path / "c", "-o", tmp_path / "out"]
    result = run("tiny", *arguments, "--sequences", 1, "--sequence-tokens", 8)
    assert result.exit_code == 3 and "no space left to write" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    result = run(tmp_path / "in", "--recipe", "int8-wo", "-o", tmp_path / "out")
    assert result.exit_code == 1 and "has neither model.safetensors" in result.stderr


def test_ctrl_c_exits_130_and_resume_finishes(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("nemotrt.quantize.writing.writer.write_index", interrupt)
        result = run(checkpoint, "--recipe", "int8-wo", "-o", tmp_path / "out")
    assert result.exit_code == 130
    assert [path.name for path in tmp_path.iterdir()] == [".out.quantizing"]
    assert run(checkpoint, "--recipe", "int8-wo", "-o", tmp_path / "out", "--resume").exit_code == 0


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None  # to import either is an error
from nemotrt.cli import main
few = ["--sequences", "1", "--sequence-tokens", "16"]
main(["quantize", "tiny", "--recipe", "int8-sq", "--kv-cache", "int8", "--calibration", "c",
    "-o", "out", *few], standalone_mode=False)
main(["inspect", "out", "--source", "tiny"], standalone_mode=False)
main(["evaluate", "out", "--against", "tiny", *few], standalone_mode=False)
"""


def test_all_of_it_runs_without_torch_and_transformers(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "W8A8_SQ_PER_CHANNEL, INT8 KV cache" in done.stdout and "worst linears" in done.stdout


def test_a_static_recipe_calibrates_once(tmp_path: Path) -> None:
    """The shipped text and tiny model; the second run takes the folder that the first made."""
    static = ["--calibration", tmp_path / "c", "--sequences", 2, "--sequence-tokens", 16]
    assert run("tiny", "--recipe", "fp8", "-o", tmp_path / "fp8", *static).exit_code == 0
    stamp = (tmp_path / "c/calibration.json").stat().st_mtime_ns
    result = run("tiny", "--recipe", "int8-sq", "-o", tmp_path / "sq", *static)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "c/calibration.json").stat().st_mtime_ns == stamp
    assert inspect_quantized(tmp_path / "sq").faults == ()
    same, text = ["--recipe", "fp8", "--force", "-o", tmp_path / "fp8"], tmp_path / "other.txt"
    text.write_text("Other text than the calibration was made of. " * 40)
    result = run("tiny", *same, *static, "--text", text)
    assert result.exit_code == 2 and "was calibrated on other text" in result.stderr
    assert run("tiny", *same, "--calibration", tmp_path / "c").exit_code == 0  # what is there
