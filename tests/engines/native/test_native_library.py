"""Where the compiled step comes from, and what happens without a compiler."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.backends.native.library import library
from nemotrt.engines.backends.native.library.compiler import (
    compile_library,
    find_compiler,
    source_hash,
)
from nemotrt.engines.backends.native.library.library import InstructionSet
from nemotrt.errors import EnvironmentUnfitError
from support.quick_compiler import copying_compiler, plain_compiler


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine that has never compiled the step."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(library.LIBRARY_VARIABLE, raising=False)
    monkeypatch.setattr(library, "INSTALLED", tmp_path / "absent.so")
    yield tmp_path


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", "/nonexistent")


def test_without_a_compiler_the_native_backend_is_refused(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_compiler(monkeypatch)
    target = str(empty_cache / "engine")
    result = CliRunner().invoke(main, ["build", "tiny", "--backend", "native", "-o", target])
    assert result.exit_code == 3
    assert "no C++ compiler" in result.output and "--backend onnxruntime" in result.output
    assert not (empty_cache / "engine").exists()
    result = CliRunner().invoke(main, ["build", "tiny", "-o", target])
    assert result.exit_code == 0, "onnxruntime serves"
    assert "building for onnxruntime: no compiled step" in result.stderr
    assert read_manifest(Path(target)).backend == "onnxruntime"


def test_native_is_the_default_on_a_cpu_with_vector_kernels(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["build", "tiny", "-o", str(tmp_path / "e")])
    assert result.exit_code == 0
    has_vectors = library.load_library().nemotrt_best_isa() > InstructionSet.PORTABLE
    expected = "native" if has_vectors else "onnxruntime"
    assert read_manifest(tmp_path / "e").backend == expected
    exact = ["build", "tiny", "--exact", "--precision", "int8-wo", "-o", str(tmp_path / "x")]
    assert CliRunner().invoke(main, exact).exit_code == 0
    assert read_manifest(tmp_path / "x").backend == "onnxruntime"


@pytest.fixture
def copying(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copying_compiler(tmp_path_factory.mktemp("compiler"))


@pytest.mark.parametrize("is_real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_library_in_the_cache_is_used_and_nothing_else_is_left_there(
    copying: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, is_real: bool
) -> None:
    command = find_compiler()
    assert command is not None
    quick = plain_compiler(copying.parent, command) if is_real else copying
    monkeypatch.setenv("CXX", str(quick))
    path = library.library_path()
    assert path.is_file() and source_hash() in str(path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    before = path.stat().st_mtime_ns
    assert library.library_path().stat().st_mtime_ns == before, "compiled once"


def test_a_failing_compiler_is_named_and_leaves_nothing(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    false = shutil.which("false")
    assert false is not None
    monkeypatch.setenv("CXX", false)
    with pytest.raises(EnvironmentUnfitError, match="can't compile the step"):
        library.library_path()
    assert not [path for path in empty_cache.rglob("*") if path.is_file()]


def test_a_library_of_other_sources_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = find_compiler()
    assert command is not None
    source = tmp_path / "old.cpp"
    source.write_text('extern "C" const char* nemotrt_source() { return "old"; }')
    subprocess.run([*command, "-shared", "-fPIC", source, "-o", tmp_path / "old.so"], check=True)
    for path, message in [("old.so", "other sources"), ("absent.so", "can't be loaded")]:
        monkeypatch.setenv(library.LIBRARY_VARIABLE, str(tmp_path / path))
        with pytest.raises(EnvironmentUnfitError, match=message):
            library.load_library.__wrapped__()


def test_an_unusable_folder_is_an_error(tmp_path: Path) -> None:
    command = find_compiler()
    assert command is not None
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        compile_library(tmp_path / "file" / "lib.so", command)


def test_only_the_cache_is_moved_by_the_caches_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A library that was named or installed lies elsewhere: another folder is no cure for it."""
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    noexec = SimpleNamespace(f_flag=os.ST_NOEXEC)
    monkeypatch.setattr(os, "statvfs", lambda path: noexec)
    monkeypatch.setenv(library.LIBRARY_VARIABLE, str(broken))
    with pytest.raises(EnvironmentUnfitError) as error:
        library.load_library.__wrapped__()
    assert "broken.so can't be loaded" in error.value.message
    assert "XDG_CACHE_HOME" not in error.value.message
