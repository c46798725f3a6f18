"""Digests are hashlib's own, taken once; a seal is believed for the same file alone."""

import hashlib
import io
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemotrt.files import digests as module
from nemotrt.files.digests import Part, digests
from nemotrt.files.seal import SETTLED_NS, Identity, read_seal

OLD = 1_700_000_000_123_456_789


class Reads:
    """Which parts were read, by the real function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts: list[Part] = []
        real, lock = module.part_digest, threading.Lock()

        def read(part, *arguments):
            with lock:
                self.parts.append(part)
            return real(part, *arguments)

        monkeypatch.setattr(module, "part_digest", read)

    def taken(self) -> int:
        """How many since it was asked."""
        count = len(self.parts)
        self.parts.clear()
        return count


@pytest.fixture
def reads(monkeypatch, tmp_path) -> Reads:
    """Seals of any file, in a cache of the test's own."""
    monkeypatch.setattr(module, "SEAL_BYTES", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Reads(monkeypatch)


def write(path: Path, data: bytes, mtime_ns: int = OLD) -> Path:
    path.write_bytes(data)
    os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def whole(path: Path) -> Part:
    return Part(path, 0, path.stat().st_size)


def seal_of(path: Path) -> Path:
    return Identity.of(path).seal


@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300))))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_any_parts_of_any_file(tmp_path, data, spans) -> None:
    path = write(tmp_path / "f", data)
    parts = [Part(path, min(a, len(data)), min(b, len(data) - min(a, len(data)))) for a, b in spans]
    expected = [hashlib.sha256(data[p.first : p.first + p.num_bytes]).hexdigest() for p in parts]
    assert digests(parts) == expected


def test_what_is_sealed_is_read_once(reads, tmp_path) -> None:
    path = write(tmp_path / "f", b"weights")
    parts = [Part(path, 0, 3), Part(path, 3, 4)]
    first = digests(parts)
    assert reads.taken() == 2
    assert digests(parts) == first and reads.taken() == 0
    assert digests([*parts, whole(path)])[:2] == first and reads.taken() == 1
    assert digests([*parts, whole(path)])[:2] == first and reads.taken() == 0
    assert digests(parts, trust_seals=False) == first and reads.taken() == 2


@pytest.mark.parametrize("how", ["rename", "link"])
def test_the_same_file_by_another_name_keeps_its_seal(reads, tmp_path, how) -> None:
    path, other = write(tmp_path / "f", b"weights"), tmp_path / "other"
    found = digests([whole(path)])
    reads.taken()
    path.rename(other) if how == "rename" else os.link(path, other)
    assert digests([whole(other)]) == found and reads.taken() == 0


def test_what_changed_or_was_copied_is_read_again(reads, tmp_path) -> None:
    path = write(tmp_path / "f", b"weights")
    digests([whole(path)])
    reads.taken()
    write(path, b"Weights", OLD + 1)
    assert digests([whole(path)]) == [hashlib.sha256(b"Weights").hexdigest()]
    assert reads.taken() == 1
    write(path, b"Weights!", OLD + 1)
    assert digests([whole(path)]) == [hashlib.sha256(b"Weights!").hexdigest()]
    assert reads.taken() == 1
    shutil.copy2(path, tmp_path / "copy")
    digests([whole(tmp_path / "copy")])
    assert reads.taken() == 1
    assert len(list(seal_of(path).parent.iterdir())) == 2  # the old seals of the file have gone


def test_the_known_limit_is_a_byte_whose_size_and_time_are_kept(reads, tmp_path) -> None:
    """As the documentation says; reading everything finds it, and mends the seal."""
    path = write(tmp_path / "f", b"weights")
    before = digests([whole(path)])
    write(path, b"Weights")
    now = [hashlib.sha256(b"Weights").hexdigest()]
    assert digests([whole(path)]) == before
    assert digests([whole(path)], trust_seals=False) == now
    assert digests([whole(path)]) == now


def test_a_file_that_may_change_unseen_is_not_sealed(reads, tmp_path) -> None:
    """Two writes within a tick of the file system's clock have one time."""
    path = tmp_path / "f"
    path.write_bytes(b"weights")
    digests([whole(path)])
    assert not seal_of(path).exists()
    later = path.stat().st_mtime_ns + 10 * SETTLED_NS
    os.utime(path, ns=(later, later))  # of a clock that is ahead
    digests([whole(path)])
    assert not seal_of(path).exists()


def test_a_file_that_changes_while_it_is_read_is_not_sealed(reads, tmp_path, monkeypatch) -> None:
    path = write(tmp_path / "f", b"weights")
    real = module.part_digest

    def read(part, *arguments):
        found = real(part, *arguments)
        write(path, b"Weights", OLD + 5)
        return found

    monkeypatch.setattr(module, "part_digest", read)
    digests([whole(path)])
    assert not list(tmp_path.glob("cache/nemotrt/seals/*"))


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_a_damaged_seal_is_as_none(reads, tmp_path, data) -> None:
    path = write(tmp_path / "f", b"weights")
    expected = digests([whole(path)])
    seal = seal_of(path)
    raw = bytearray(seal.read_bytes())
    kind = data.draw(st.sampled_from(["cut", "flip", "junk"]))
    if kind == "cut":
        raw = raw[: data.draw(st.integers(0, len(raw) - 3))]
    elif kind == "flip":
        digest = expected[0].encode()
        start = raw.index(digest)
        # A digit for a digit is a digest like any other: a seal is no signature.
        raw[data.draw(st.integers(start, start + 63))] = data.draw(
            st.sampled_from(b"gG-\x00\xff\n")
        )
    else:
        raw = bytearray(data.draw(st.binary(max_size=80)))
    seal.write_bytes(raw)
    assert read_seal(Identity.of(path)) == {}
    assert digests([whole(path)]) == expected
    assert read_seal(Identity.of(path)) != {}


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        '{"schema_version": 2}',
        '{"schema_version": 1, "identity": [7, 1, 2, 3], "sha256": {"0:7": "%s"}}' % ("0" * 64),
        '{"schema_version": 1, "identity": IDENTITY, "sha256": {"7": "%s"}}' % ("0" * 64),
        '{"schema_version": 1, "identity": IDENTITY, "sha256": {"0:x": "%s"}}' % ("0" * 64),
    ],
)
def test_a_foreign_seal_is_as_none(reads, tmp_path, text) -> None:
    path = write(tmp_path / "f", b"weights")
    expected = digests([whole(path)])
    identity = str([*Identity.of(path)])
    seal_of(path).write_text(text.replace("IDENTITY", identity))
    assert digests([whole(path)]) == expected == [hashlib.sha256(b"weights").hexdigest()]


def test_without_a_cache_everything_is_read(reads, tmp_path, monkeypatch) -> None:
    from nemotrt.errors import EnvironmentUnfitError
    from nemotrt.files import seal as seal_module

    def refuse() -> Path:
        raise EnvironmentUnfitError("nothing can be written anywhere")

    monkeypatch.setattr(seal_module, "user_cache", refuse)
    path = write(tmp_path / "f", b"weights")
    for _ in range(2):
        assert digests([whole(path)]) == [hashlib.sha256(b"weights").hexdigest()]
        assert reads.taken() == 1


def test_a_fault_ends_the_other_reads(reads, tmp_path, monkeypatch) -> None:
    paths = [write(tmp_path / f"f{i}", bytes(i + 1)) for i in range(8)]
    stop = threading.Event()
    real = module.part_digest

    def read(part, *arguments):
        if part.path == paths[-1]:
            raise OSError("the disk is gone")
        return real(part, *arguments)

    monkeypatch.setattr(module, "part_digest", read)
    with pytest.raises(OSError, match="the disk is gone"):
        digests([whole(path) for path in paths], stop=stop)
    assert stop.is_set()
    assert not list(tmp_path.glob("cache/nemotrt/seals/*"))


@pytest.mark.parametrize(("what", "is_shown"), [("verifying the weights", True), ("", False)])
def test_a_long_read_is_shown_on_a_terminal(tmp_path, monkeypatch, what, is_shown) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(module, "SAID_BYTES", 1)
    digests([whole(write(tmp_path / "f", b"weights"))], what=what)
    assert ("verifying the weights" in terminal.getvalue()) == is_shown
