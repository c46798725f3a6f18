"""Where a quantized checkpoint goes: never over what is read, never half, whatever a disk does."""

import errno
import os
import resource
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.writing import shard, writer
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support.quantized_bytes import INT8, folder_bytes, leftovers


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
