"""Open loops, traces, presets, goodput; and runs that are cut short."""

import itertools
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.errors import ConfigError
from nemotrt.profiles import measure
from nemotrt.profiles.command import profile
from nemotrt.profiles.load.choice import Choice, choose, parse_slos
from nemotrt.profiles.load.presets import presets
from nemotrt.profiles.load.schedule import schedule
from nemotrt.profiles.load.trace import read_trace
from nemotrt.profiles.load.workload import Arrival, Workload
from nemotrt.profiles.result import read_result
from nemotrt.profiles.targets.opening import TargetOptions, open_target


def measured(scripted, workload, **script):
    options = TargetOptions(tokenizer="tiny-dense", extra={"script": script})
    return measure.run(open_target(scripted.url, workload, options), workload)


def test_poisson_gaps_are_exponential():
    workload = Workload(
        16, 4, 4000, num_warmup=0, arrival=Arrival.POISSON, requests_per_s=50, seed=1
    )
    dues = [due_s for due_s, _ in itertools.islice(schedule(workload), 4000)]
    gaps = np.diff(dues)
    assert gaps.mean() == pytest.approx(0.02, rel=0.05)
    assert gaps.std() == pytest.approx(0.02, rel=0.08)


def test_an_open_loop_counts_latency_from_when_a_request_was_due(scripted):
    """Requests come each 20 ms, whatever the answers take: 100 ms."""
    workload = Workload(16, 4, 20, num_warmup=0, arrival=Arrival.FIXED, requests_per_s=50)
    result = measured(scripted, workload, ttft_ms=70, itl_ms=10)
    assert result.status == "complete", result.reason
    assert [r.due_s for r in result.requests[:4]] == pytest.approx([0, 0.02, 0.04, 0.06])
    assert result.metric("ttft_ms") == pytest.approx(70, abs=8)
    late = max(r.sent_s - r.due_s for r in result.requests if r.sent_s is not None)
    assert late < 0.05


def test_goodput_by_hand(scripted):
    workload = Workload(16, 4, 6, num_warmup=0, slos={"ttft_ms": 15.0})
    assert measured(scripted, workload, ttft_ms=60).metric("goodput_requests_per_s") == 0
    workload = Workload(16, 4, 6, num_warmup=0, slos={"ttft_ms": 500.0, "tpot_ms": 400.0})
    result = measured(scripted, workload)
    assert result.metric("goodput_requests_per_s") == result.metric("requests_per_s")


def test_a_trace_is_replayed(scripted, tmp_path):
    lines = [(1000, 20, 3), (1100, 30, 5), (1050, 12, 2)]
    path = tmp_path / "trace.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"timestamp": t, "input_length": i, "output_length": o, "hash_ids": [1]})
            for t, i, o in lines
        )
    )
    args = [scripted.url, "--trace", str(path), "--tokenizer", "tiny-dense", "-q"]
    done = CliRunner().invoke(profile, [*args, "-o", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    requests = read_result(tmp_path / "run").requests
    assert [(r.isl, r.osl) for r in requests] == [(20, 3), (12, 2), (30, 5)]
    assert [r.due_s for r in requests] == pytest.approx([0, 0.05, 0.1])
    assert [e.due_s for e in read_trace(path, speedup=2)] == pytest.approx([0, 0.025, 0.05])


@pytest.mark.parametrize("line", ["", "[]", '{"timestamp": 1}', "x", '{"timestamp":0,"a":1}'])
def test_a_damaged_trace_is_refused(tmp_path, line):
    path = tmp_path / "trace.jsonl"
    path.write_text(line)
    with pytest.raises(ConfigError, match="trace"):
        read_trace(path)


def test_presets():
    assert set(presets()) == {"8k16k", "1k8k", "32k1k", "128k", "smoke"}
    small, large = choose(Choice(preset="8k16k", isl=100), (2, 8))
    assert (small.isl, small.osl, small.num_requests) == (100, 16384, 4)
    assert (large.concurrency, large.num_requests, large.num_warmup) == (8, 16, 8)
    with pytest.raises(ConfigError, match="did you mean '8k16k'"):
        choose(Choice(preset="8k16"), (1,))


@pytest.mark.parametrize("item", ["ttft:5", "ttft_ms:x", "ttft_ms"])
def test_slos_are_checked(item):
    with pytest.raises(ConfigError):
        parse_slos((item,))


@given(st.integers(1, 300), st.integers(1, 64))
def test_warmup_answers_are_spread(osl, concurrency):
    workload = Workload(8, osl, 1, concurrency=concurrency)
    lengths = [workload.warmup_osl(index) for index in range(concurrency)]
    assert lengths == sorted(lengths)
    assert lengths[-1] == osl
    assert lengths[0] >= 1


def start(scripted, output, osl=2000):
    args = [sys.executable, "-m", "nemotrt", "profile", scripted.url, "--tokenizer", "tiny-dense"]
    args += ["-o", str(output), "--isl", "16", "--osl", str(osl), "-n", "8", "--warmup", "0", "-q"]
    return subprocess.Popen(args, stderr=subprocess.PIPE)


def wait_for(condition):
    deadline_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_what_was_measured(scripted, tmp_path, number):
    output = tmp_path / "run"
    process = start(scripted, output)
    wait_for(lambda: scripted.log()["requests"])
    time.sleep(0.2)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    result = read_result(output)
    assert result.status == "interrupted"
    assert len(result.requests[0].arrivals_s) > 10
    assert "not complete" in (output / "report.html").read_text()
    assert not output.with_name("run.partial").exists()
    wait_for(lambda: scripted.log()["num_cancelled"] == 1)


def test_a_kill_leaves_a_journal_that_can_be_read(scripted, tmp_path):
    output = tmp_path / "run"
    process = start(scripted, output, osl=30)
    wait_for(lambda: len(scripted.log()["requests"]) > 3)
    process.kill()
    process.communicate()
    assert not output.exists()
    done = CliRunner().invoke(profile, ["report", str(tmp_path / "run.partial")])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "run.partial" / "report.html").read_text()
    assert "not complete (interrupted): the run was killed" in text


def test_a_sweep_compares_its_runs(engine_folder, tmp_path):
    args = [str(engine_folder), "-c", "1,2", "--isl", "8", "--osl", "4", "-n", "2"]
    done = CliRunner().invoke(profile, [*args, "-o", str(tmp_path / "s"), "--json"])
    assert done.exit_code == 0, done.output
    runs = json.loads(done.stdout)["runs"]
    assert [run["workload"]["concurrency"] for run in runs] == [1, 2]
    page = (tmp_path / "s" / "report.html").read_text()
    assert "2 of 2 runs are complete" in page
    assert page.count("<svg") == 3
