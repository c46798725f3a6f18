"""How much memory kept prefixes have: given, by the machine, or refused by name."""

import logging
import mmap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.commandline.options import words_of
from nemotrt.engines.runtime.kept_state import KeptStats
from nemotrt.engines.runtime.state.kept.options import KeptSsm, PrefixCacheOptions
from nemotrt.errors import ConfigError
from nemotrt.files import memory
from nemotrt.serve.engine.host import EngineHost
from nemotrt.serve.engine.host import main as host_command
from nemotrt.serve.processes.options import ChunkRate, EngineOptions, QueueLimits
from support.flat_engine import FlatEngine

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 GiB, 8 of them free, whose container has no limit yet."""
    (tmp_path / "info").write_text(f"MemTotal: {16 << 20} kB\nMemAvailable:   {8 << 20} kB\n")
    monkeypatch.setattr(memory, "INFO", tmp_path / "info")
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    monkeypatch.setattr(memory, "MAPS", tmp_path / "maps")
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 4 << 20}.get)
    return tmp_path


def limit(can_keep: bool = True, **told: Any) -> int:
    return PrefixCacheOptions(**told).limit_bytes("native", can_keep=can_keep)


def test_the_default_is_a_quarter_of_what_is_free(machine) -> None:
    assert memory.memory_bytes() == 16 * GIB
    assert limit() == 2 * GIB


def test_a_container_s_room_counts(machine) -> None:
    """Its limit less what it uses; what it holds of files it can give back."""
    (machine / "memory.max").write_text("max\n")
    assert limit() == 2 * GIB
    (machine / "memory.max").write_text(f"{4 * GIB}\n")
    assert memory.memory_bytes() == 4 * GIB
    assert limit() == GIB
    (machine / "memory.current").write_text(f"{3 * GIB}\n")
    assert limit() == GIB // 4
    (machine / "memory.stat").write_text(f"anon 5\nactive_file {GIB}\ninactive_file {GIB}\n")
    assert limit() == 3 * GIB // 4
    (machine / "memory.current").write_text(f"{9 * GIB}\n")
    assert limit() == 0


def test_what_the_engine_maps_is_not_free(machine) -> None:
    """Its weights lie in the page cache, which Linux counts as free."""
    (machine / "maps").write_text(
        f"{0x1000:x}-{0x1000 + GIB:x} r--p 00000000 08:01 77 /engine/weights\n"
        f"{1 << 40:x}-{(1 << 40) + GIB:x} rw-p 00000000 00:00 0 \n"
    )
    assert limit() == 7 * GIB // 4


def test_the_maps_of_this_process_count(tmp_path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(1 << 22))
    before = memory.mapped_bytes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ):
        assert memory.mapped_bytes() - before == 1 << 22
    mmap.mmap(-1, 1 << 22).close()


def test_where_linux_does_not_say_nothing_is_kept_unasked(machine) -> None:
    (machine / "info").unlink()
    assert limit() == 0
    assert limit(prefix_cache_gib=1) == GIB


def test_what_is_given_holds(machine, caplog) -> None:
    assert limit(prefix_cache_gib=0) == 0
    assert limit(prefix_cache_gib=1.5, prefix_cache_ssm=KeptSsm.FLOAT16) == 3 * GIB // 2
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert limit(prefix_cache_gib=9) == 9 * GIB
    assert "--prefix-cache-gib 9: 8.0 GiB are free" in caplog.text
    with pytest.raises(ConfigError, match=r"--prefix-cache-gib 17 is more than .* 16\.0 GiB"):
        limit(prefix_cache_gib=17)


@pytest.mark.parametrize(
    ("told", "name"),
    [({"prefix_cache_gib": 1}, "gib"), ({"prefix_cache_ssm": KeptSsm.FLOAT16}, "ssm")],
)
def test_an_engine_that_keeps_nothing_refuses_by_name(machine, told, name) -> None:
    with pytest.raises(ConfigError, match=f"--prefix-cache-{name} is for engines .* native's"):
        limit(can_keep=False, **told)
    assert limit(can_keep=False) == limit(can_keep=False, prefix_cache_gib=0) == 0


@pytest.mark.parametrize(
    "told",
    [
        {"prefix_cache_gib": -1},
        {"prefix_cache_gib": float("nan")},
        {"prefix_cache_gib": float("inf")},
        {"prefix_cache_gib": 0, "prefix_cache_ssm": KeptSsm.FLOAT16},
    ],
)
def test_wrong_options_are_refused(told) -> None:
    with pytest.raises(ConfigError, match=r"prefix_cache_gib|--prefix-cache-ssm"):
        PrefixCacheOptions(**told)


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "x"])
def test_the_command_line_refuses_what_is_no_size(value, engine_folder) -> None:
    words = ["serve", "run", str(engine_folder), "--dry-run", "--prefix-cache-gib", value]
    found = CliRunner().invoke(main, words)
    assert found.exit_code == 2 and "--prefix-cache-gib" in found.output


def test_the_words_of_the_options_say_them_again() -> None:
    told = EngineOptions(prefix_cache=PrefixCacheOptions(1.5, KeptSsm.FLOAT16))
    words = words_of(told)
    assert words == ["--prefix-cache-gib", "1.5", "--prefix-cache-ssm", "float16"]
    assert words_of(EngineOptions(prefix_cache=PrefixCacheOptions(0))) == [
        "--prefix-cache-gib",
        "0",
    ]
    assert words_of(EngineOptions()) == []
    with host_command.make_context("host", ["e", "--socket", "s", *words]) as ctx:
        assert ctx.params["prefix_cache_gib"] == 1.5
        assert ctx.params["prefix_cache_ssm"] is KeptSsm.FLOAT16


def test_the_engine_s_process_keeps_states_unless_told(opened, machine) -> None:
    def stats(**told: Any) -> KeptStats | None:
        host = EngineHost(opened, QueueLimits(), ChunkRate(), None, PrefixCacheOptions(**told))
        kept = host.loop.scheduler.kept
        assert ("nemotrt_prefix_cache" in host.metrics()) == (kept is not None)
        return kept

    found = stats()
    assert found is not None and found.limit_bytes == 2 * GIB
    assert stats(prefix_cache_gib=1).limit_bytes == GIB  # type: ignore[union-attr]
    assert stats(prefix_cache_gib=0) is None


def test_an_engine_whose_states_can_t_be_saved_keeps_none(opened, machine) -> None:
    other = replace(opened, engine=FlatEngine(64))
    assert EngineHost(other, QueueLimits()).loop.scheduler.kept is None
    with pytest.raises(ConfigError, match="--prefix-cache-gib is for engines whose states"):
        EngineHost(other, QueueLimits(), prefix_cache=PrefixCacheOptions(1))
