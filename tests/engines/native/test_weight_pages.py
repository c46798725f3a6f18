"""How weights come into memory and threads onto cores: on this machine, and on trees of others'."""

import ctypes
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.artefact.options import OpenOptions, WeightPages
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.native import pages
from nemotrt.engines.backends.native.library.cores import core_order, memory_nodes, numbers
from nemotrt.engines.backends.native.pages import has_huge_pages, map_weights, page_use
from nemotrt.engines.opening import check_mapping, open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError

LIMITS = Limits(max_batch_size=1, max_seq_len=32, chunk_tokens=8)
SIZE = 3 << 20
SMAPS = """\
7f0000000000-7f0000400000 r--s 00000000 fe:00 260386      /e/weights.bin
Size:               4096 kB
Rss:                3072 kB
AnonHugePages:         0 kB
FilePmdMapped:      2048 kB
VmFlags: rd mr me
7f0000400000-7f0000500000 rw-p 00000000 00:00 0
Rss:                1024 kB
AnonHugePages:      1024 kB
FilePmdMapped:         0 kB
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("e") / "engine"
    build_engine(TINY_MODELS["tiny"], target, BuildSpec("native", limits=LIMITS))
    return target


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.bin"
    path.write_bytes(np.arange(SIZE, dtype=np.uint8).tobytes())
    return path


def test_the_same_bytes_however_they_come(weights: Path) -> None:
    expected = np.arange(SIZE, dtype=np.uint8)
    for way in set(WeightPages) - {WeightPages.INTERLEAVE}:
        np.testing.assert_array_equal(map_weights(weights, way), expected)


def test_only_populated_weights_are_there_before_they_are_read(weights: Path) -> None:
    lazy, populated = map_weights(weights), map_weights(weights, WeightPages.POPULATE)
    ours, theirs = page_use([lazy]), page_use([populated])
    if ours is None or theirs is None:
        pytest.skip("this system does not tell")
    assert ours.num_bytes == theirs.num_bytes == SIZE
    assert ours.resident_bytes == 0 and theirs.resident_bytes == SIZE


def test_what_is_there_is_summed_over_the_mappings_of_the_arrays(tmp_path: Path) -> None:
    class Part:
        def __init__(self, start: int, nbytes: int) -> None:
            self.nbytes = nbytes
            self.ctypes = type("Place", (), {"data": start})

    (tmp_path / "smaps").write_text(SMAPS)
    weights: Any = Part(0x7F0000000000, 4 << 20)
    state: Any = Part(0x7F0000400000, 1 << 19)
    found = page_use([weights], tmp_path / "smaps")
    assert found == pages.PageUse(4 << 20, 3 << 20, 2 << 20)
    assert page_use([state], tmp_path / "smaps") == pages.PageUse(1 << 19, 1 << 19, 1 << 19)
    assert page_use([state], tmp_path / "none") is None


@pytest.mark.parametrize("content", [None, b""])
def test_a_file_that_cannot_be_mapped_is_told(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "w").write_bytes(content)
    with pytest.raises(ArtefactError, match="can't be mapped"):
        map_weights(tmp_path / "w", WeightPages.POPULATE)


def test_interleaving_over_one_node_is_refused_by_name(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "memory_nodes", lambda: (0,))
    with pytest.raises(ConfigError, match="--weight-pages interleave is for machines of several"):
        map_weights(weights, WeightPages.INTERLEAVE)


def test_interleaving_runs_by_the_system_call_and_ends(weights: Path) -> None:
    """Over the one node that there is: the call and its arguments are right, and are undone."""
    policy = ctypes.c_int(-1)
    library = ctypes.CDLL(None, use_errno=True)
    get_policy = {"x86_64": 239, "aarch64": 236}[os.uname().machine]
    try:
        with pages._interleaved(WeightPages.INTERLEAVE, (0,)):
            if library.syscall(get_policy, ctypes.byref(policy), None, 0, None, 0):
                pytest.skip("this system does not tell")
            assert policy.value == pages.POLICY_INTERLEAVE
        assert map_weights(weights, WeightPages.INTERLEAVE, (0,)).size == SIZE
    except EnvironmentUnfitError as error:
        pytest.skip(str(error))
    library.syscall(get_policy, ctypes.byref(policy), None, 0, None, 0)
    assert policy.value == pages.POLICY_DEFAULT


def test_a_node_that_is_not_there_is_the_systems_refusal(weights: Path) -> None:
    with pytest.raises(EnvironmentUnfitError, match="refuses to interleave"):
        map_weights(weights, WeightPages.INTERLEAVE, (63,))
    with pytest.raises(EnvironmentUnfitError, match="not known"):
        map_weights(weights, WeightPages.INTERLEAVE, (64,))


def test_each_core_comes_once_before_its_second_thread(tmp_path: Path) -> None:
    for cpu, siblings in enumerate(["0,4", "1,5", "2-3", "2-3", "0,4", "1,5"]):
        place = tmp_path / "cpu" / f"cpu{cpu}" / "topology"
        place.mkdir(parents=True)
        (place / "thread_siblings_list").write_text(f"{siblings}\n")
    assert core_order(range(6), tmp_path) == [0, 1, 2, 3, 4, 5]
    assert core_order([3, 2, 4, 0], tmp_path) == [0, 2, 3, 4]
    assert core_order([9, 8], tmp_path) == [8, 9], "nothing is told of them"


def test_nodes_are_those_with_memory(tmp_path: Path) -> None:
    assert memory_nodes(tmp_path) == ()
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "has_memory").write_text("0-1,4\n")
    assert memory_nodes(tmp_path) == (0, 1, 4)
    assert numbers("\n") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("always [madvise] never", True), ("always madvise [never]", False), (None, False)],
)
def test_huge_pages_are_told(text: str | None, expected: bool, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "enabled").write_text(text)
    assert has_huge_pages(tmp_path / "enabled") is expected


def thread_masks() -> list[set[int]]:
    """Where each thread of this process may run."""
    return [os.sched_getaffinity(int(name)) for name in os.listdir("/proc/self/task")]


def test_pinned_threads_have_one_core_and_the_same_bits(folder: Path) -> None:
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one CPU")
    rows = []
    for is_pinned in (False, True):
        before = thread_masks().count({core_order(allowed)[1]})
        opened = open_engine(folder, OpenOptions(num_threads=2, pins_threads=is_pinned))
        pinned = thread_masks().count({core_order(allowed)[1]}) - before
        assert pinned == int(is_pinned) and os.sched_getaffinity(0) == allowed
        slot = opened.engine.allocate()
        rows.append(opened.engine.step([Feed(slot, [5, 6, 7])]).copy())
        opened.engine.close()
    np.testing.assert_array_equal(*rows)


def test_more_threads_than_cores_are_not_pinned(folder: Path) -> None:
    count = len(os.sched_getaffinity(0)) + 1
    with pytest.raises(ConfigError, match=f"--pin-threads: {count} threads can't"):
        open_engine(folder, OpenOptions(num_threads=count, pins_threads=True))


@pytest.mark.parametrize("backend", registry.backends(), ids=lambda backend: backend.name)
def test_each_backend_takes_the_options_or_refuses_them(backend: Any) -> None:
    manifest: Any = type("Manifest", (), {"backend": backend.name})
    check_mapping(manifest, OpenOptions())
    for options in (OpenOptions(weight_pages=WeightPages.POPULATE), OpenOptions(pins_threads=True)):
        if backend.maps_weights:
            check_mapping(manifest, options)
            continue
        with pytest.raises(ConfigError, match=f"is for engines of native.*{backend.name}'s"):
            check_mapping(manifest, options)


@pytest.mark.parametrize("option", [("--weight-pages", "populate"), ("--pin-threads",)])
def test_a_server_holds_its_weights_by_its_own_option(option: tuple, tmp_path: Path) -> None:
    command = ["profile", "run", "http://127.0.0.1:9/v1", "-o", str(tmp_path / "r")]
    more = ["--tokenizer", "tiny", "--isl", "4", "--osl", "2", "-n", "1", "--no-gpu"]
    result = CliRunner().invoke(main, [*command, *more, *option])
    assert result.exit_code == 2 and f"{option[0]} is for an engine directory" in result.stderr


def test_weights_that_are_written_to_answer_nothing_more(folder, tmp_path) -> None:
    """Another build copied over a served one has its size and finite weights: it would answer."""
    copied = tmp_path / "engine"
    shutil.copytree(folder, copied)
    opened = open_engine(copied, OpenOptions(1))
    slot = opened.engine.allocate()
    opened.engine.step([Feed(slot, [3, 4])])
    weights = copied / "weights.bin"
    weights.rename(copied / "aside")  # as a build puts its files: nothing is written to
    shutil.copy(copied / "aside", weights)
    opened.engine.step([Feed(slot, [5])])
    with (copied / "aside").open("r+b") as file:
        file.write(file.read(1))  # the same byte, at the next place
    with pytest.raises(ArtefactError, match="was written to while in use"):
        opened.engine.step([Feed(slot, [6])])
    opened.engine.close()
