"""The written folder against the source: names, bytes, configs, faults, kills."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError
from nemotrt.quantize.calibration.calibrate import calibrate
from nemotrt.quantize.calibration.calibration import save_calibration
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.recipes.recipe import load_recipe, recipe_names
from nemotrt.quantize.writing import partial, shard, writer
from nemotrt.quantize.writing.writer import quantize_checkpoint

INT8 = load_recipe("int8-wo")
FP8_DYNAMIC = load_recipe("fp8-dynamic")
IN_PROJ = "backbone.layers.0.mixer.in_proj"


def load(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def leftovers(target: Path) -> list[str]:
    return [path.name for path in target.parent.iterdir() if target.name in path.name]


@pytest.mark.parametrize("model_type", ["nemotron_h", "qwen3"])
@pytest.mark.parametrize("recipe", [INT8, FP8_DYNAMIC], ids=lambda recipe: recipe.name)
def test_weights_are_quantized_and_the_rest_is_the_same(
    make_checkpoint: Callable[..., Path], tmp_path: Path, model_type: str, recipe: writer.Recipe
) -> None:
    source = make_checkpoint(model_type)
    result = quantize_checkpoint(source, tmp_path / "out", recipe)
    before, after = load(source), load(tmp_path / "out")
    scales = {name for name in after if name.endswith(".weight_scale")}
    assert len(scales) == result.num_linears > 0
    assert after.keys() - scales == before.keys()
    for name, tensor in before.items():
        if f"{name}_scale" not in scales:
            assert torch.equal(after[name].view(torch.uint8), tensor.view(torch.uint8)), name
            continue
        scale = after[f"{name}_scale"]
        assert scale.dtype == torch.float32 and scale.shape == (tensor.shape[0],)
        back = after[name].float() * scale[:, None]
        error = (back - tensor.float()).norm() / tensor.float().norm()
        assert error < (0.012 if recipe is INT8 else 0.03), name


def test_both_configs_agree_and_the_rest_of_the_folder_comes_along(
    checkpoint: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out"
    quantize_checkpoint(checkpoint, target, FP8_DYNAMIC, QuantizeOptions(kv_cache="fp8"))
    nested = json.loads((target / "hf_quant_config.json").read_text())["quantization"]
    config = json.loads((target / "config.json").read_text())
    flat = config["quantization_config"]
    assert flat["quant_algo"] == nested["quant_algo"] == "FP8_PER_CHANNEL_PER_TOKEN"
    assert flat["ignore"] == nested["exclude_modules"]
    assert nested["kv_cache_quant_algo"] == "FP8"
    assert flat["kv_cache_scheme"] == {"dynamic": False, "num_bits": 8, "type": "float"}
    assert config["mamba_ssm_cache_dtype"] == "float32"
    original = json.loads((checkpoint / "config.json").read_text())
    assert {key: config[key] for key in original} == original
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (target / name).read_bytes() == (checkpoint / name).read_bytes()


def test_weights_in_other_formats_stay_behind(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_checkpoint()
    for name in ("pytorch_model.bin", "pytorch_model.bin.index.json", ".hidden"):
        (source / name).write_text("{}")
    (source / "modeling_nemotron_h.py").write_text("# theirs")
    quantize_checkpoint(source, tmp_path / "out", INT8)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "modeling_nemotron_h.py" in names
    assert not any("pytorch_model" in name or name == ".hidden" for name in names)


def test_the_engine_reads_it_back(checkpoint: Path, tmp_path: Path) -> None:
    quantize_checkpoint(checkpoint, tmp_path / "out", INT8)
    opened = open_checkpoint(tmp_path / "out")
    assert opened.quant.precision is Precision.INT8_WO
    assert opened[f"{IN_PROJ}.weight"].dtype == "I8"


def test_index_names_every_tensor_where_it_is(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    quantize_checkpoint(checkpoint, target, INT8)
    index = json.loads((target / "model.safetensors.index.json").read_text())
    found = {}
    for path in target.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found.update(dict.fromkeys(file.keys(), path.name))
    assert index["weight_map"] == found
    sizes = [tensor.nbytes for tensor in load(target).values()]
    assert index["metadata"]["total_size"] == sum(sizes)


def test_a_single_file_needs_no_index(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    quantize_checkpoint(make_checkpoint(num_shards=1), tmp_path / "out", INT8)
    assert [path.name for path in (tmp_path / "out").glob("model*")] == ["model.safetensors"]


def test_an_empty_shard_stays_an_empty_shard(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = make_checkpoint()
    empty = b'{"__metadata__":{"format":"pt"}}'
    (source / "model-9.safetensors").write_bytes(len(empty).to_bytes(8, "little") + empty)
    index = json.loads((source / "model.safetensors.index.json").read_text())
    index["weight_map"]["unused"] = "model-9.safetensors"
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    quantize_checkpoint(source, tmp_path / "out", INT8)
    assert load_file(tmp_path / "out/model-9.safetensors") == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_float_types(
    make_checkpoint: Callable[..., Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    source = make_checkpoint(dtype=dtype)
    quantize_checkpoint(source, tmp_path / "out", INT8)
    before, after = load(source), load(tmp_path / "out")
    weight = before[f"{IN_PROJ}.weight"].float()
    scale = weight.abs().amax(1) / 127
    assert torch.equal(after[f"{IN_PROJ}.weight_scale"], scale)
    assert torch.equal(after[f"{IN_PROJ}.weight"].float(), (weight / scale[:, None]).round())


def test_a_zero_row_and_an_equal_row(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{IN_PROJ}.weight"][0] = 0
        tensors[f"{IN_PROJ}.weight"][1] = 0.5

    quantize_checkpoint(make_checkpoint(edit=edit), tmp_path / "out", INT8)
    after = load(tmp_path / "out")
    codes, scales = after[f"{IN_PROJ}.weight"], after[f"{IN_PROJ}.weight_scale"]
    assert scales[0] == 1 and not codes[0].any()
    assert (codes[1] == 127).all() and scales[1] == torch.tensor(0.5) / 127


@pytest.mark.parametrize("recipe", recipe_names())
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_bad_weight_is_named_and_nothing_is_left(
    make_checkpoint: Callable[..., Path], tmp_path: Path, value: str, recipe: str
) -> None:
    """Whatever the recipe: the calibration may be of better days."""

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{IN_PROJ}.weight"][7, 3] = float(value)

    ids = np.arange(32).reshape(2, 16)
    save_calibration(calibrate(open_checkpoint(make_checkpoint()), ids), tmp_path / "c")
    options = QuantizeOptions(calibration=tmp_path / "c")
    with pytest.raises(
        ArtefactError, match=r"in_proj.weight holds NaN or infinity, first in row 7"
    ):
        quantize_checkpoint(
            make_checkpoint(edit=edit), tmp_path / "out", load_recipe(recipe), options
        )
    assert leftovers(tmp_path / "out") == []


def test_a_quantized_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    quantize_checkpoint(checkpoint, tmp_path / "once", INT8)
    with pytest.raises(ConfigError, match="quantized already"):
        quantize_checkpoint(tmp_path / "once", tmp_path / "twice", INT8)
    (tmp_path / "once/hf_quant_config.json").unlink()  # config.json still says it
    with pytest.raises(ConfigError, match="quantized already"):
        quantize_checkpoint(tmp_path / "once", tmp_path / "twice", INT8)
    assert leftovers(tmp_path / "twice") == []


def test_an_existing_folder_needs_force(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="--force"):
        quantize_checkpoint(checkpoint, tmp_path / "out", INT8)
    assert (tmp_path / "out/mine.txt").read_text() == "mine"
    quantize_checkpoint(checkpoint, tmp_path / "out", INT8, QuantizeOptions(force=True))
    assert leftovers(tmp_path / "out") == ["out"]
    assert not (tmp_path / "out/mine.txt").exists()


def test_the_source_is_never_the_target(checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match="checkpoint itself"):
        quantize_checkpoint(checkpoint, checkpoint, INT8, QuantizeOptions(force=True))


def test_what_is_read_is_never_replaced(
    make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = tmp_path / "models/nano"
    shutil.copytree(make_checkpoint(), source)
    before = folder_bytes(source)
    with pytest.raises(ConfigError, match=r"holds .*nano, which is read"):
        quantize_checkpoint(source, tmp_path / "models", INT8, QuantizeOptions(force=True))
    assert folder_bytes(source) == before
    quantize_checkpoint(source, tmp_path / "models/nano-int8", INT8)


def test_sync_forces_every_file_to_the_disk_before_the_name_appears(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, forced = tmp_path / "out", {}

    def fsync(fd: int) -> None:
        forced[os.fstat(fd).st_ino] = target.exists()

    monkeypatch.setattr(os, "fsync", fsync)
    quantize_checkpoint(checkpoint, target, INT8)
    assert forced == {}
    quantize_checkpoint(checkpoint, target, INT8, QuantizeOptions(force=True, sync=True))
    shutil.rmtree(target)
    forced.clear()
    quantize_checkpoint(checkpoint, target, INT8, QuantizeOptions(sync=True))
    for path in (*target.iterdir(), target):
        assert forced[path.stat().st_ino] is False, path
    assert forced[tmp_path.stat().st_ino] is True


def test_a_disk_that_is_too_small_is_found_before_the_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(EnvironmentUnfitError, match="free"):
        quantize_checkpoint(checkpoint, tmp_path / "out", INT8)
    assert leftovers(tmp_path / "out") == []


def test_a_write_that_the_system_refuses(checkpoint: Path, tmp_path: Path) -> None:
    """The kernel itself says no in the middle: files above 20 kB are not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(EnvironmentUnfitError, match=r"File too large.*--resume"):
            quantize_checkpoint(checkpoint, tmp_path / "out", INT8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers(tmp_path / "out") == [".out.quantizing"]
    quantize_checkpoint(checkpoint, tmp_path / "out", INT8, QuantizeOptions(resume=True))
    assert leftovers(tmp_path / "out") == ["out"]


@pytest.mark.parametrize("what", ["EXDEV", "nothing copied"])
def test_files_that_the_kernel_cant_copy_between(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    quantize_checkpoint(checkpoint, tmp_path / "whole", INT8)

    def refuse(*arguments: int) -> int:
        if what == "EXDEV":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return 0

    monkeypatch.setattr(os, "copy_file_range", refuse)
    quantize_checkpoint(checkpoint, tmp_path / "out", INT8)
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")


@pytest.mark.parametrize("num_bytes", [1, 5000, 60_000])  # of a copied tensor, then of codes
def test_a_source_that_shrinks_while_it_is_read(
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_bytes: int,
) -> None:
    source = make_checkpoint(num_shards=1)
    planned = writer.plan

    def shrinking(*arguments: Any, **named: Any) -> Any:
        result = planned(*arguments, **named)
        with (source / "model.safetensors").open("r+b") as file:
            file.truncate((source / "model.safetensors").stat().st_size - num_bytes)
        return result

    monkeypatch.setattr(writer, "plan", shrinking)
    with pytest.raises(ArtefactError, match="got shorter while it was read"):
        quantize_checkpoint(source, tmp_path / "out", INT8)
    assert leftovers(tmp_path / "out") == []


def test_no_piece_outlives_its_files(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a fault the files close: a thread that still wrote might write to another file."""
    active: list[object] = []

    def convert(fd: int, rows: object, *arguments: object) -> None:
        active.append(rows)
        time.sleep(0.1 * len(active))
        active.remove(rows)
        raise ArtefactError("a bad weight")

    shards, *_ = writer.plan(checkpoint, INT8, QuantizeOptions())
    monkeypatch.setattr(shard, "convert_rows", convert)
    with ThreadPoolExecutor(4) as pool, pytest.raises(ArtefactError, match="a bad weight"):
        source = checkpoint / shards[0].file_name
        try:
            shard.write_shard(source, tmp_path / "out", shards[0], pool, lambda num_bytes: None)
        finally:
            assert active == []


def interrupted(checkpoint: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run until two shards are written, then fail as a full disk does."""
    finished = partial.Partial.mark_finished

    def failing(self: partial.Partial, shard: str) -> None:
        finished(self, shard)
        if len(self.finished) == 2:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(EnvironmentUnfitError, match="--resume"):
        patch.setattr(partial.Partial, "mark_finished", failing)
        quantize_checkpoint(checkpoint, target, INT8)
    assert not target.exists()
    return target.parent / f".{target.name}.quantizing"


def test_resume_writes_only_what_is_missing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize_checkpoint(checkpoint, tmp_path / "whole", INT8)
    folder = interrupted(checkpoint, tmp_path / "out", monkeypatch)
    inodes = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert len(inodes) == 2
    quantize_checkpoint(checkpoint, tmp_path / "out", INT8, QuantizeOptions(resume=True))
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")
    for name, stamp in inodes.items():
        assert (tmp_path / "out" / name).stat().st_mtime_ns == stamp


@pytest.mark.parametrize("place", [9, -1])
def test_resume_redoes_a_shard_whose_bytes_changed(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    quantize_checkpoint(checkpoint, tmp_path / "whole", INT8)
    folder = interrupted(checkpoint, tmp_path / "out", monkeypatch)
    victim = min(folder.glob("*.safetensors"))
    data = bytearray(victim.read_bytes())
    data[place] ^= 1
    victim.write_bytes(data)
    quantize_checkpoint(checkpoint, tmp_path / "out", INT8, QuantizeOptions(resume=True))
    assert folder_bytes(tmp_path / "out") == folder_bytes(tmp_path / "whole")


def test_resume_on_a_disk_that_is_still_full_keeps_what_is_finished(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = interrupted(checkpoint, tmp_path / "out", monkeypatch)
    usage = shutil.disk_usage(tmp_path)._replace(free=1)
    with (
        monkeypatch.context() as patch,
        pytest.raises(EnvironmentUnfitError, match=r"needs .* more"),
    ):
        patch.setattr(writer.shutil, "disk_usage", lambda path: usage)
        quantize_checkpoint(checkpoint, tmp_path / "out", INT8, QuantizeOptions(resume=True))
    assert len(list(folder.glob("*.safetensors"))) == 2
    quantize_checkpoint(checkpoint, tmp_path / "out", INT8, QuantizeOptions(resume=True))
    assert leftovers(tmp_path / "out") == ["out"]


def test_resume_refuses_another_recipe(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = interrupted(checkpoint, tmp_path / "out", monkeypatch)
    with pytest.raises(ConfigError, match="another checkpoint, recipe or option"):
        quantize_checkpoint(checkpoint, tmp_path / "out", FP8_DYNAMIC, QuantizeOptions(resume=True))
    assert len(list(folder.glob("*.safetensors"))) == 2  # still there for the right command
    quantize_checkpoint(checkpoint, tmp_path / "out", FP8_DYNAMIC)
    assert leftovers(tmp_path / "out") == ["out"]


def test_two_processes_do_not_fill_one_folder(checkpoint: Path, tmp_path: Path) -> None:
    with (
        partial.filling_folder(tmp_path / "out", "plan"),
        pytest.raises(EnvironmentUnfitError, match="another process"),
    ):
        quantize_checkpoint(checkpoint, tmp_path / "out", INT8)


# Runs `nemotrt quantize`, killing itself at the n-th call that changes the disk.
KILLED_RUN = """
import os, shutil, signal, sys
from pathlib import Path
count = 0
def deadly(function):
    def call(*arguments, **named):
        global count
        count += 1
        if count == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call
changes = "pwrite copy_file_range sendfile ftruncate replace rename unlink mkdir rmdir"
for name in changes.split():
    setattr(os, name, deadly(getattr(os, name)))
Path.write_text = deadly(Path.write_text)
from nemotrt.quantize.command import quantize
quantize.main(sys.argv[2:], standalone_mode=False)
print(count)
"""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["int8-wo", "int8-sq"])
def test_fifty_kills_at_random_moments(
    make_checkpoint: Callable[..., Path], tmp_path: Path, recipe: str
) -> None:
    """Whenever SIGKILL comes, the target is absent or whole, and --resume completes it.

    One recipe fills a new folder, the other replaces an older output, which may stay till the end.
    """
    source, target, older = make_checkpoint(), tmp_path / "out", tmp_path / "before"
    calibration = tmp_path / "c"
    save_calibration(calibrate(open_checkpoint(source), np.arange(32).reshape(2, 16)), calibration)
    quantize_checkpoint(source, older, FP8_DYNAMIC)
    options = QuantizeOptions(calibration=calibration)
    quantize_checkpoint(source, tmp_path / "whole", load_recipe(recipe), options)
    arguments = [str(source), "--recipe", recipe, "-o", str(target), "--resume", "--quiet"]
    replaces = recipe == "int8-sq"
    if replaces:
        arguments += ["--force", "--calibration", str(calibration)]

    def run(deadly_call: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED_RUN, str(deadly_call), *arguments]
        return subprocess.run(command, cwd="/", capture_output=True, text=True)

    def begin() -> None:
        shutil.rmtree(target, ignore_errors=True)
        if replaces:
            shutil.copytree(older, target)

    begin()
    num_calls = int(run(0).stdout)
    expected, before = folder_bytes(target), folder_bytes(older)
    assert num_calls > 60 and same_but_the_record(expected, folder_bytes(tmp_path / "whole"))
    last = {num_calls - number for number in range(10)}  # the renames, and what is removed
    moments = {*last, *random.sample(range(1, num_calls - 9), 40)}
    for deadly_call in sorted(moments, key=lambda call: random.random()):
        begin()
        assert run(deadly_call).returncode == -signal.SIGKILL
        if target.exists() and folder_bytes(target) == expected and not replaces:
            continue
        assert not target.exists() or (replaces and folder_bytes(target) in (before, expected))
        assert run(0).returncode == 0
        assert folder_bytes(target) == expected
        assert leftovers(target) == ["out"]


def same_but_the_record(one: dict[str, bytes], other: dict[str, bytes]) -> bool:
    """Whether two outputs are alike but for the record, which has the command's settings."""
    return one | {writer.RECORD_FILE: b""} == other | {writer.RECORD_FILE: b""}
