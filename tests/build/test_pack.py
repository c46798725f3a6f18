"""A packed engine opens wherever it is taken, is whole or not there, and costs no second copy."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.checkpoint import checkpoint_files as files_module
from nemotrt.files import placing
from support import movable, reference
from support.movable import HOLDS, READS, generate


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reference.save(reference.nemotron_h("M-*M-"), tmp_path_factory.mktemp("p") / "source")


@pytest.fixture
def checkpoint(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "home" / "checkpoint"))


@pytest.fixture
def plan(checkpoint: Path) -> Path:
    return movable.write("tensorrt", checkpoint, checkpoint.parent / "engine")


def pack(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["pack", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result


def inspect(folder: Path) -> Result:
    return CliRunner().invoke(main, ["inspect", str(folder)])


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("backend", (*HOLDS, *READS))
def test_it_opens_elsewhere_with_the_original_gone(backend, checkpoint, tmp_path) -> None:
    engine = movable.write(backend, checkpoint, checkpoint.parent / "engine")
    before = generate(backend, engine)
    assert before.exit_code == 0, before.output
    found = json.loads(pack(engine, "-o", tmp_path / "packed", "--json").stdout)
    assert (found["checkpoint"] is None) == (backend in HOLDS)
    moved = (tmp_path / "packed").rename(tmp_path / "away")
    shutil.rmtree(checkpoint.parent)
    after = generate(backend, moved)
    assert (after.exit_code, after.stdout) == (0, before.stdout), after.output
    assert generate(backend, moved, "--verify").stdout == before.stdout
    told = read_manifest(moved).checkpoint.path
    assert told == ("checkpoint" if backend in READS else str(checkpoint))
    inspected = inspect(moved)
    assert inspected.exit_code == 0
    assert "every SHA-256 verified" in inspected.stdout
    again = tmp_path / "again"  # a packed one can be packed
    pack(moved, "-o", again)
    shutil.rmtree(moved)
    assert generate(backend, again).stdout == before.stdout


def test_a_moved_checkpoint_is_packed_and_another_is_not(plan, checkpoint, tmp_path) -> None:
    moved = checkpoint.rename(tmp_path / "moved")
    refused = pack(plan, "-o", tmp_path / "p", code=1)
    assert "is missing" in refused.stderr and "--checkpoint PATH" in refused.stderr
    other = reference.save(reference.nemotron_h("M-*-"), tmp_path / "other")
    refused = pack(plan, "-o", tmp_path / "p", "--checkpoint", other, code=1)
    assert "layers is M-*-" in refused.stderr
    assert "p" not in left_in(tmp_path)
    pack(plan, "-o", tmp_path / "p", "--checkpoint", moved)


def test_what_is_damaged_is_not_packed(plan, checkpoint, tmp_path) -> None:
    weights = checkpoint / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused = pack(plan, "-o", tmp_path / "p", code=1)
    assert "has other bytes" in refused.stderr
    weights.write_bytes(whole)
    (plan / "engine.plan").write_bytes(b"x")
    refused = pack(plan, "-o", tmp_path / "p", code=1)
    assert "engine.plan has changed" in refused.stderr
    assert left_in(tmp_path) == ["home"]


def test_packing_twice_is_refused_by_name_or_replaces(plan, tmp_path) -> None:
    pack(plan, "-o", tmp_path / "p")
    refused = pack(plan, "-o", tmp_path / "p", code=2)
    assert f"{tmp_path / 'p'} exists" in refused.stderr
    pack(plan, "-o", tmp_path / "p", "--force")
    assert left_in(tmp_path) == ["home", "p"]
    dry = pack(plan, "-o", tmp_path / "q", "--dry-run")
    assert "would pack" in dry.stderr and left_in(tmp_path) == ["home", "p"]


@pytest.mark.parametrize("where", ["engine", "engine/p", "checkpoint/p", ".", ""])
def test_neither_lies_in_the_other(plan, where) -> None:
    home = plan.parent
    refused = pack(plan, "-o", home / where, "--force", code=2)
    assert "lie in each other" in refused.stderr
    assert left_in(home) == ["checkpoint", "engine"]
    assert not (plan / "p").exists() and not (home / "checkpoint/p").exists()


def test_a_packed_engine_holds_what_it_was_packed_with(plan, tmp_path) -> None:
    """Any file that goes, changes or joins is found, the weights' too."""
    packed = tmp_path / "p"
    pack(plan, "-o", packed)
    names = sorted(p.relative_to(packed) for p in packed.rglob("*") if p.is_file())
    assert Path("checkpoint/model.safetensors") in names
    for name in names:
        path = packed / name
        data = path.read_bytes()
        path.unlink()  # it may be a link
        assert inspect(packed).exit_code == 1, name
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]) if data else b"x")
        assert inspect(packed).exit_code == 1, name
        path.write_bytes(data)
    assert inspect(packed).exit_code == 0
    (packed / "checkpoint" / "more.safetensors").write_bytes(b"")
    refused = inspect(packed)
    assert refused.exit_code == 1 and "is not part of the engine" in refused.stderr


@pytest.fixture(params=["clone", "link", "copy in the kernel", "copy"])
def disk(request, monkeypatch) -> str:
    """File systems that can less and less."""
    refused = {
        "clone": [],
        "link": ["ioctl"],
        "copy in the kernel": ["ioctl", "link"],
        "copy": ["ioctl", "link", "copy_file_range"],
    }[request.param]

    def refuse(*arguments: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    for name in refused:
        monkeypatch.setattr(placing.fcntl if name == "ioctl" else placing.os, name, refuse)
    return str(request.param)


def test_files_are_shared_where_the_disk_can(disk, tmp_path) -> None:
    data = {"large": os.urandom(3 << 20), "small": b"abc", "empty": b""}
    for name, content in data.items():
        (tmp_path / name).write_bytes(content)
    os.symlink("large", tmp_path / "linked")  # as in the hub's cache
    pairs = [(tmp_path / name, tmp_path / "new" / name) for name in (*data, "linked")]
    placed = placing.place_files(pairs)
    for source, target in pairs:
        assert target.read_bytes() == source.read_bytes() and not target.is_symlink()
    assert placed.num_bytes == 2 * (3 << 20) + 3
    assert placed.copied_bytes == (placed.num_bytes if disk.startswith("copy") else 3)
    assert not (tmp_path / "new/small").samefile(tmp_path / "small")


def test_a_disk_without_room_is_found_before_anything_is_copied(
    plan, tmp_path, monkeypatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(placing.shutil, "disk_usage", lambda _: usage._replace(free=10))
    copied = []
    monkeypatch.setattr(placing, "_copy", lambda *pair: copied.append(pair))
    refused = pack(plan, "-o", tmp_path / "p", code=3)
    assert "make room" in refused.stderr and copied == []
    assert left_in(tmp_path) == ["home"]


def test_code_is_packed_only_where_it_is_trusted(checkpoint, tmp_path) -> None:
    (checkpoint / "modeling_x.py").write_text("x = 1\n")
    names = {path.name for path in files_module.checkpoint_files(checkpoint)}
    assert names == {"config.json", "generation_config.json", "model.safetensors"}
    for flags in ((), ("--trust-remote-code",)):
        engine, target = tmp_path / f"e{len(flags)}", tmp_path / f"p{len(flags)}"
        words = ["build", str(checkpoint), "--backend", "tensorrt-llm", "--gpu", "a10g"]
        result = CliRunner().invoke(main, [*words, "-q", *flags, "-o", str(engine)])
        assert result.exit_code == 0, result.output
        pack(engine, "-o", target)
        assert (target / "checkpoint/modeling_x.py").exists() == bool(flags)
