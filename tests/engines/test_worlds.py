"""TensorRT-LLM's process: its own Python, its versions, its end, and whatever it says."""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.backends.tensorrt_llm.llm_args import llm_args, with_reuse
from nemotrt.engines.backends.tensorrt_llm.options import TensorRTLLMOptions
from nemotrt.engines.backends.tensorrt_llm.process import interpreter, versions
from nemotrt.engines.backends.tensorrt_llm.process.llm_process import LLMProcess
from nemotrt.engines.backends.tensorrt_llm.process.news import read_news
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.engines.runtime.request_scheduler import BreaksAlone
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ChildProcessFailedError, EnvironmentUnfitError
from nemotrt.wire.frames import encode, read_frame
from support.other_world import STAND_IN, World

LIMITS = Limits(max_batch_size=2, max_seq_len=96, chunk_tokens=16)
PROMPT = (1, 700, 23, 1999, 4)
LONG = SamplingParams(max_tokens=80, ignore_eos=True)
NEW = TensorRTLLMOptions(prefix_snapshots=32, avg_seq_len=48)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def build(folder: Path, options: TensorRTLLMOptions | None = None) -> Path:
    more = {} if options is None else {"options": options}
    spec = BuildSpec("tensorrt-llm", "h100", limits=LIMITS, **more)
    build_engine(TINY_MODELS["tiny"], folder, spec)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("bundle") / "b")


@pytest.fixture
def opened(bundle: Path, world: World) -> Iterator[OpenEngine]:
    with world.chosen():
        opened = open_engine(bundle)
        yield opened
        opened.engine.close()


def process_of(opened: OpenEngine) -> LLMProcess:
    process = opened.engine.process  # type: ignore[attr-defined]
    assert isinstance(process, LLMProcess)
    return process


def wait_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(is_there(pid) for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.05)


def is_there(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_death_while_idle_is_told_at_once(opened: OpenEngine) -> None:
    """To whoever asked before or after it, with the process's last lines; not when it is closed."""
    scheduler, told = opened.scheduler(), queue.SimpleQueue[str]()
    assert isinstance(scheduler, BreaksAlone)
    scheduler.when_broken(lambda: told.put("before"))
    scheduler.check()
    os.kill(process_of(opened).pid, signal.SIGKILL)
    assert told.get(timeout=20) == "before"
    scheduler.when_broken(lambda: told.put("after"))
    assert told.get(timeout=20) == "after"
    with pytest.raises(ChildProcessFailedError, match="ended with exit code -9"):
        scheduler.check()


def test_an_end_that_was_asked_for_is_no_death(bundle: Path, world: World) -> None:
    with world.chosen():
        opened = open_engine(bundle)
    scheduler, told = opened.scheduler(), queue.SimpleQueue[str]()
    assert isinstance(scheduler, BreaksAlone)
    scheduler.when_broken(lambda: told.put("broken"))
    [waiter] = [thread for thread in threading.enumerate() if thread.name == "llm process's end"]
    opened.engine.close()
    waiter.join(20)
    assert not waiter.is_alive() and told.empty()


def test_the_other_python_has_nothing_of_ours(world: World) -> None:
    for name in ("numpy", "nemotrt", "pydantic", "click"):
        done = subprocess.run([world.python, "-I", "-c", f"import {name}"], capture_output=True)
        assert b"ModuleNotFoundError" in done.stderr, name


BOOT = """
import runpy, sys
sys.path.insert(0, {stand_in!r})
words = [word for word in sys.argv[1:] if word != "-I"]
if words[0] == "-c":
    exec(words[1])
else:
    sys.argv = words
    runpy.run_path(words[0], run_name="__main__")
"""


def test_it_needs_no_package_but_tensorrt_llm(bundle: Path, world: World, tmp_path: Path) -> None:
    """Without any site-packages: an import of ours, of numpy or of pydantic would fail."""
    boot, python = tmp_path / "boot.py", tmp_path / "python"
    boot.write_text(BOOT.format(stand_in=str(STAND_IN)))
    python.write_text(f'#!/bin/sh\nexec {world.python} -I -S {boot} "$@"\n')
    python.chmod(0o755)
    with world.chosen("1.4.0rc4") as patch:
        patch.delenv(interpreter.PYTHON_VARIABLE)
        command = ["generate", str(bundle), "--prompt-ids", "1,700,23", "--max-tokens", "4"]
        command += ["--json", "--prompt-logprobs", "1", "--logit-bias", "5=1"]
        found = CliRunner().invoke(main, [*command, "--tensorrt-llm-python", str(python)])
    assert found.exit_code == 0, found.output
    assert len(json.loads(found.stdout)["tokens"]) == 4


def test_closing_ends_the_process_and_its_children(opened: OpenEngine) -> None:
    process = process_of(opened)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children  # the stand-in computes in one, as MPI's workers do
    opened.engine.close()
    wait_gone([process.pid, *(child.pid for child in children)])
    opened.engine.close()


@pytest.mark.parametrize("how", ["killed", "crashed"])
def test_its_death_is_told_with_its_last_words(how: str, opened: OpenEngine, world: World) -> None:
    scheduler = opened.scheduler()
    scheduler.submit(Request("r", PROMPT, LONG))
    scheduler.step()
    says = "exit code -9" if how == "killed" else "exit code -6.*an illegal memory access"
    with world.broken(dies=how == "crashed"):
        if how == "killed":
            os.kill(process_of(opened).pid, signal.SIGKILL)
        with pytest.raises(ChildProcessFailedError, match=f"(?s){says}"):
            while True:
                scheduler.step()
        with pytest.raises(ChildProcessFailedError):  # and again
            scheduler.submit(Request("s", PROMPT, LONG))
            while True:
                scheduler.step()


def test_a_death_before_it_is_ready(bundle: Path, world: World) -> None:
    with (
        world.chosen(),
        world.broken(dies_at_start=True),
        pytest.raises(ChildProcessFailedError, match="ended before it was ready with exit code -6"),
    ):
        open_engine(bundle)


def test_it_ends_when_we_are_killed(bundle: Path, world: World) -> None:
    code = (
        "import sys, time; from pathlib import Path; from nemotrt.engines.opening import *\n"
        "print(open_engine(Path(sys.argv[1])).engine.process.pid, flush=True); time.sleep(600)"
    )
    with world.chosen():
        command = [sys.executable, "-c", code, str(bundle)]
        starter = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    children = [child.pid for child in psutil.Process(pid).children(recursive=True)]
    starter.kill()
    starter.wait()
    starter.stdout.close()
    wait_gone([pid, *children])


def test_a_bundle_of_the_newest_options_runs_where_they_are(tmp_path: Path, world: World) -> None:
    target = build(tmp_path / "b", NEW)
    command = ["generate", str(target), "--prompt-ids", "1,700,23", "--max-tokens", "2"]
    with world.chosen("1.2.1"):
        found = CliRunner().invoke(main, command)
    assert found.exit_code == 3
    assert "1.2.1 has no kv_cache_config.mamba_state_config" in found.stderr
    assert "without --prefix-snapshots" in found.stderr
    with world.chosen("1.4.0rc4"):
        opened = open_engine(target)
        assert process_of(opened).version == "1.4.0rc4"
        opened.engine.close()


LIMIT_FLAGS = ("--max-batch-size", "2", "--max-seq-len", "96", "--chunk-tokens", "16")


@pytest.fixture(scope="module")
def planned_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `nemotrt build` writes it; a state is kept every 8 tokens, for a tiny model's prompts."""
    target = tmp_path_factory.mktemp("planned") / "b"
    command = ["build", "tiny", "--backend", "tensorrt-llm", "--gpu", "h100", *LIMIT_FLAGS]
    result = CliRunner().invoke(main, [*command, "-o", str(target)])
    assert result.exit_code == 0, result.output
    args = target / "llm_args_reuse.yaml"
    args.write_text(args.read_text().replace("interval: 2048", "interval: 8"))
    return target


def answers(opened: OpenEngine, *requests: Request) -> list[tuple[int | None, list[int], int]]:
    """Of each request, one after the other: cached tokens, its own tokens, scored prompt tokens."""
    found = []
    scheduler = opened.scheduler()
    for request in requests:
        scheduler.submit(request)
        updates: list[Update] = []
        while not scheduler.is_idle:
            updates += scheduler.step()
        assert updates[-1].finish_reason is FinishReason.LENGTH, updates[-1].error
        told = [u.cached_tokens for u in updates if u.cached_tokens is not None]
        assert len(told) <= 1 and (not told or updates[0].cached_tokens == told[0])
        tokens = [token.id for update in updates for token in update.tokens]
        scored = sum(len(update.prompt) for update in updates)
        found.append((told[0] if told else None, tokens, scored))
    return found


def test_prefixes_are_reused_where_the_version_keeps_states(
    planned_bundle: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The same bundle on each: every 8 tokens from 1.3.0rc24 on; before, nothing and a word."""
    params = SamplingParams(max_tokens=4, ignore_eos=True)
    text = tuple(range(10, 40))
    scored = SamplingParams(max_tokens=4, ignore_eos=True, prompt_logprobs=1)
    requests = (
        Request("a", text, params),
        Request("b", (*text[:20], 7, 8), params),
        Request("c", (*text, 9), params, salt="tenant"),
        Request("d", (*text, 9), params, salt="tenant"),
        Request("e", (*text, 9), scored),
    )
    with world.chosen("1.2.1"):
        opened = open_engine(planned_bundle, verify=False)
        old = answers(opened, *requests)
        opened.engine.close()
    assert [cached for cached, _, _ in old] == [None] * 5
    assert "1.2.1 keeps no recurrent state" in caplog.text and "1.3.0rc24" in caplog.text
    caplog.clear()
    for version in ("1.3.0rc24", "1.4.0rc4"):
        with world.chosen(version):
            opened = open_engine(planned_bundle, verify=False)
            new = answers(opened, *requests)
            opened.engine.close()
        assert [cached for cached, _, _ in new] == [0, 16, 0, 24, 0]
        assert [rest for _, *rest in new] == [rest for _, *rest in old]
        assert new[-1][2] == 31  # a scored prompt comes whole, though others left prefixes of it
    assert not caplog.text


def test_a_count_that_can_not_be_is_not_believed(planned_bundle: Path, world: World) -> None:
    with world.chosen("1.4.0rc4"), world.broken(cached=6):
        opened = open_engine(planned_bundle, verify=False)
        [(cached, tokens, _)] = answers(
            opened, Request("r", PROMPT, SamplingParams(max_tokens=2, ignore_eos=True))
        )
        opened.engine.close()
    assert cached is None and len(tokens) == 2


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("1.2.1", "mamba_state_config"),
        ("1.3.0rc23", "mamba_state_config"),
        ("1.3.0rc23.post1", "mamba_state_config"),
        ("main", "mamba_state_config"),
        ("1.3.0rc24", None),
        ("1.3.0", None),
        ("1.4.0rc1", None),
    ],
)
def test_which_version_keeps_states(version: str, name: str | None) -> None:
    args = with_reuse(llm_args(LIMITS, has_fp8_cache=False), 8, 3)
    since = versions.lacking(version, args.model_dump(mode="json", exclude_none=True))
    assert (since.name if since else None) == name


@pytest.mark.parametrize(
    ("version", "options", "fp8", "capability", "message"),
    [
        ("1.2.1", TensorRTLLMOptions(), False, "8.6", None),
        ("1.2.2", TensorRTLLMOptions(), False, None, None),
        ("1.4.0rc4", NEW, True, "9.0", None),
        ("1.4.0", NEW, True, "8.9", None),
        ("1.3.0rc24.post1", TensorRTLLMOptions(prefix_snapshots=8), False, None, None),
        ("1.3.0rc15", TensorRTLLMOptions(prefix_snapshots=8), False, None, "mamba_state_config"),
        ("1.3.0rc27", NEW, False, None, "avg_seq_len.*--avg-seq-len"),
        ("1.2.1", TensorRTLLMOptions(), True, "8.6", "8.6 has no FP8"),
        ("1.2.1", TensorRTLLMOptions(), True, None, None),  # TensorRT-LLM says that there is no GPU
        ("1.2.1rc6", TensorRTLLMOptions(), False, None, "1.2.1 or later"),
        ("1.1.0", TensorRTLLMOptions(), False, None, "1.2.1 or later"),
        ("", TensorRTLLMOptions(), False, None, "1.2.1 or later"),
        ("main", TensorRTLLMOptions(), False, None, "1.2.1 or later"),
    ],
)
def test_what_a_version_lacks_is_refused_by_name(
    version: str,
    options: TensorRTLLMOptions,
    fp8: bool,
    capability: str | None,
    message: str | None,
) -> None:
    args = llm_args(LIMITS, has_fp8_cache=fp8, options=options)
    told = args.model_dump(mode="json", exclude_none=True)
    if message is None:
        versions.check_version(version, told, capability)
    else:
        with pytest.raises(EnvironmentUnfitError, match=message):
            versions.check_version(version, told, capability)


def test_a_gpu_without_fp8_is_seen_before_the_model_loads(
    tmp_path: Path, world: World, bundle: Path
) -> None:
    target = tmp_path / "b"
    shutil.copytree(bundle, target)
    args = target / "llm_args.yaml"
    args.write_text(args.read_text().replace("dtype: auto", "dtype: fp8"))
    with (
        world.chosen(STAND_IN_CAPABILITY="[8, 6]"),
        pytest.raises(EnvironmentUnfitError, match=r"8\.6 has no FP8"),
    ):
        open_engine(target, verify=False)


def test_its_environment_has_no_secrets(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = ("NEMOTRT_API_KEYS", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD_PASSWORD")
    kept = ("TOKENIZERS_PARALLELISM", "NCCL_DEBUG", "TLLM_SPAWN_HMAC_KEY", "PATH")
    for name in (*secret, *kept, "PYTHONPATH"):
        monkeypatch.setenv(name, "/x")
    foreign, own = interpreter.environment("/other"), interpreter.environment(sys.executable)
    assert not {*secret, "PYTHONPATH"} & foreign.keys()
    assert not {*secret} & own.keys()
    assert {*kept} <= foreign.keys() and {*kept, "PYTHONPATH"} <= own.keys()


def test_where_it_is_not_the_line_that_makes_one_is_said(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpreter, "SYSTEM_PYTHON", str(tmp_path / "none"))
    for chosen, says in (
        (None, "is in no Python here"),
        (str(tmp_path / "none"), "no program here"),
        (sys.executable, "has no module tensorrt_llm"),
    ):
        if chosen is not None:
            monkeypatch.setenv(interpreter.PYTHON_VARIABLE, chosen)
        with pytest.raises(EnvironmentUnfitError, match=f"{says}.*pip install 'tensorrt-llm"):
            open_engine(bundle)


def test_the_image_s_own_python_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(interpreter.PYTHON_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(world.python.parent))
    assert interpreter.find_python() == f"{world.python}3"
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(interpreter, "SYSTEM_PYTHON", str(world.python))
    assert interpreter.find_python() == str(world.python)


def test_it_is_for_bundles_alone(tiny_engine: Path) -> None:
    command = ["generate", str(tiny_engine), "--prompt-ids", "1", "--tensorrt-llm-python", "p"]
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 2 and "is for bundles of tensorrt-llm" in found.stderr


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
ITEM = st.fixed_dictionaries(
    {}, optional={name: JSON for name in ("id", "ids", "logprobs", "finish_reason", "fault")}
)
ROWS = ("id", "start", "num_rows", "vocab_size", "num_bytes")


@settings(deadline=None, max_examples=60)
@given(
    st.fixed_dictionaries({"op": st.just("gained"), "items": st.lists(ITEM, max_size=2) | JSON})
    | st.fixed_dictionaries({"op": st.just("rows")}, optional=dict.fromkeys(ROWS, JSON))
    | st.dictionaries(st.text(max_size=5), JSON),
    st.binary(max_size=64),
)
def test_whatever_it_says_is_news_or_a_broken_protocol(frame: dict[str, Any], data: bytes) -> None:
    try:
        found = read_news(frame, data, vocab_size=10)
    except (ConnectionError, ValueError):
        return
    for news in found:
        assert news.number >= 0 and all(0 <= token < 10 for token in news.ids)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(max_size=5), JSON), st.binary(max_size=32), st.data())
def test_a_frame_with_bytes_behind_it_is_read_whole_or_not(
    frame: dict[str, Any], data: bytes, draw: st.DataObject
) -> None:
    frame["num_bytes"] = len(data)
    sent = encode(frame) + data
    stream = BytesIO(sent)
    assert read_frame(stream) == (json.loads(json.dumps(frame)), data)
    assert read_frame(stream) is None
    cut = draw.draw(st.integers(1, len(sent) - 1))
    with pytest.raises(ConnectionError):
        read_frame(BytesIO(sent[:cut]))


@pytest.mark.slow
def test_numpy_1_of_its_world_and_numpy_2_of_ours(bundle: Path, tmp_path: Path) -> None:
    """As in a virtual environment of TensorRT-LLM 1.2."""
    import numpy as np

    world = World(tmp_path)
    [packages] = world.python.parents[1].glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", str(packages), "numpy<2"]
    subprocess.run(install, check=True)
    assert np.__version__ >= "2"
    for version in ("1.2.1", "1.4.0rc4"):
        with world.chosen(version, STAND_IN_NUMPY="1"):
            command = ["generate", str(bundle), "--prompt-ids", "1,700,23", "--json"]
            command += ["--logprobs", "2", "--prompt-logprobs", "2", "--logit-bias", "5=2.5"]
            found = CliRunner().invoke(main, [*command, "--max-tokens", "8"])
        assert found.exit_code == 0, found.output
        assert len(json.loads(found.stdout)["tokens"]) == 8
