"""A build needs no cache: without one that can be written, and trusted, a private folder does."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotrt.engines.backends.native.library.library import INSTALLED
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.files import user_cache as module
from nemotrt.files.user_cache import user_cache, usual_cache
from support.quick_compiler import copying_compiler, plain_compiler


@pytest.fixture(autouse=True)
def fresh(monkeypatch) -> Iterator[None]:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    module._writable.cache_clear()
    yield
    module._writable.cache_clear()


def check_temporary(path: Path, err: str, why: str) -> None:
    assert path.name.startswith("nemotrt-cache-")
    found = path.stat()
    assert found.st_mode & 0o777 == 0o700 and found.st_uid == os.getuid()
    assert not path.is_symlink()
    assert why in err and "Set XDG_CACHE_HOME" in err


def test_the_usual_cache(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert usual_cache() is None
    assert user_cache() == tmp_path / ".cache" / "nemotrt" == usual_cache()
    assert user_cache().stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    assert user_cache() == tmp_path / "own" / "nemotrt"
    monkeypatch.setenv("XDG_CACHE_HOME", "-relative")  # the specification ignores it
    assert user_cache() == tmp_path / ".cache" / "nemotrt"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("value", ["/dev/null", "/proc/none", "{file}", "{file}/below"])
def test_a_cache_that_can_not_be_written(tmp_path, monkeypatch, capsys, variable, value) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(variable, value.format(file=tmp_path / "file"))
    path = user_cache()
    check_temporary(path, capsys.readouterr().err, "can't be used")
    assert user_cache() == path and capsys.readouterr().err == ""  # one note
    assert usual_cache() is None


def test_no_home_at_all(monkeypatch, capsys) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    check_temporary(user_cache(), capsys.readouterr().err, "no home")


def test_a_cache_of_another_users_is_not_used(tmp_path, monkeypatch, capsys) -> None:
    """What lies there is loaded as code."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    planted = tmp_path / "nemotrt"
    planted.mkdir()
    os.chown(planted, 12345, 12345)
    assert usual_cache() is None
    check_temporary(user_cache(), capsys.readouterr().err, "another user")


def test_a_cache_in_a_folder_that_all_may_write_is_not_used(tmp_path, monkeypatch, capsys) -> None:
    common = tmp_path / "common"
    common.mkdir()
    common.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(common))
    check_temporary(user_cache(), capsys.readouterr().err, "another user")
    common.chmod(0o777 | stat.S_ISVTX)  # as /tmp: only the owner may replace a name
    module._writable.cache_clear()
    assert user_cache() == common / "nemotrt"


def test_an_own_cache_that_others_may_write_is_closed(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "nemotrt").mkdir()
    (tmp_path / "nemotrt").chmod(0o777)
    assert user_cache().stat().st_mode & 0o777 == 0o700


def test_without_any_folder_it_is_said(monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")

    def refuse(**_: object) -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(EnvironmentUnfitError, match="TMPDIR"):
        user_cache()


@pytest.mark.parametrize("is_real", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_engine_is_built_and_runs_without_a_home(tmp_path, is_real) -> None:
    """The compiled step has nowhere to be kept; the temporary folder goes with the process."""
    # what the compiler does is not the point
    compiler = plain_compiler(tmp_path, ["c++"]) if is_real else copying_compiler(tmp_path)
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    there = os.environ | {"HOME": "/dev/null", "TMPDIR": str(scratch), "CXX": str(compiler)}
    engine = str(tmp_path / "engine")
    for words in (
        ["build", "tiny", "--backend", "native", "-o", engine],
        ["generate", engine, "The", "--max-tokens", "2"],
    ):
        command = [sys.executable, "-m", "nemotrt", *words]
        done = subprocess.run(command, env=there, capture_output=True, text=True)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        assert list(scratch.iterdir()) == []
    assert INSTALLED.is_file() or "kept for this run alone" in done.stderr


def test_the_quantizer_runs_without_a_home(tmp_path) -> None:
    there = os.environ | {"HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/x"}
    words = ["quantize", "tiny", "--recipe", "int8-wo", "-o", str(tmp_path / "q")]
    command = [sys.executable, "-m", "nemotrt", *words]
    done = subprocess.run(command, env=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_cache_of_which_nothing_may_run_is_named(tmp_path) -> None:
    """Before a compiler runs for minutes, and by `doctor`; what needs no compiled code goes on."""
    cache = tmp_path / "cache"
    cache.mkdir()
    mount = 'mount -t tmpfs -o noexec tmpfs "$XDG_CACHE_HOME" && exec "$@"'
    here = os.environ | {"XDG_CACHE_HOME": str(cache)}

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = ["unshare", "-rm", "sh", "-c", mount, "sh", sys.executable, "-m", "nemotrt"]
        return subprocess.run([*command, *words], env=here, capture_output=True, text=True)

    built = run("build", "tiny", "--backend", "native", "-o", str(tmp_path / "engine"))
    told = run("doctor")
    for done, code in ((built, 3), (told, 0)):
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        said = done.stdout + done.stderr
        assert f"{cache}/nemotrt is on a disk that is mounted noexec" in said
        assert "set XDG_CACHE_HOME" in said
    assert "no      keep what is compiled in the cache" in told.stdout
    other = run("generate", "tiny", "The", "--max-tokens", "2")  # built for another backend
    assert other.returncode == 0, other.stderr
