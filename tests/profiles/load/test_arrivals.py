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
from nemotrt.profiles.command import profile
from nemotrt.profiles.load.choice.choice import choose, parse_slos
from nemotrt.profiles.load.choice.options import LoadChoice
from nemotrt.profiles.load.choice.presets import presets
from nemotrt.profiles.load.choice.trace import read_trace
from nemotrt.profiles.load.prompts import Prompt
from nemotrt.profiles.load.schedule import schedule
from nemotrt.profiles.load.target import Target
from nemotrt.profiles.load.targets.opening import open_target
from nemotrt.profiles.load.targets.options import TargetOptions
from nemotrt.profiles.load.workload import Arrival, Workload
from nemotrt.profiles.runs import measure
from nemotrt.profiles.runs.record.result import read_result
from nemotrt.profiles.runs.run_folder import read_run


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
    """The server answers one request at a time, in 80 ms; one is due each 20 ms: each waits 60 ms
    longer than the one before it. A user that waits for its answer would never see that.
    A busy machine may deliver two requests in the other order, so the k-th answer is looked at."""
    workload = Workload(16, 4, 10, num_warmup=0, arrival=Arrival.FIXED, requests_per_s=50)
    result = measured(scripted, workload, ttft_ms=50, itl_ms=10, serial=True)
    assert result.status == "complete", result.reason
    requests = [r for r in result.requests if r.phase == "measured"]
    assert [r.due_s for r in requests] == pytest.approx([0.02 * k for k in range(10)], abs=1e-5)
    latencies_ms = [1e3 * (r.arrivals_s[-1] - r.due_s) for r in requests]
    ends_ms = sorted(1e3 * r.arrivals_s[-1] for r in requests)
    assert all(end > 80 * (k + 1) - 1 for k, end in enumerate(ends_ms))
    assert result.metric("e2e_latency_ms", "max") == pytest.approx(max(latencies_ms))


def test_a_late_driver_does_not_hide_its_lateness(tmp_path):
    """The target holds the loop for 60 ms with each request; one is due each 20 ms."""

    class Blocking(Target):
        facts = {"kind": "blocking", "address": "-", "model": "m"}  # noqa: RUF012

        def prompt(self, index, isl):
            return Prompt(())

        async def open(self):
            pass

        async def send(self, prompt, exchange):
            exchange.mark_sent(time.perf_counter())
            time.sleep(0.06)
            exchange.add(time.perf_counter(), 1)

        async def close(self):
            pass

    workload = Workload(1, 1, 8, num_warmup=0, arrival=Arrival.FIXED, requests_per_s=50)
    result = measure.run(Blocking(), workload)
    latencies = [1e3 * (r.arrivals_s[0] - r.due_s) for r in result.requests if r.arrivals_s]
    assert all(latency > 60 + 40 * k - 1 for k, latency in enumerate(latencies[:8]))
    assert result.driver.is_limit  # it slept, and used no CPU: but it had no time either
    assert any("it, not the server, may have been the limit" in note for note in result.notes)


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


def test_no_two_runs_have_the_same_prompts():
    """A server that keeps prefixes would know those of the run before."""
    first, *others = choose(LoadChoice(seed=7), (1, 2), 2), choose(LoadChoice(seed=7), (1, 2), 2)
    seeds = [workload.seed for workload in first]
    assert len(set(seeds)) == 4
    assert [workload.seed for workload in others[0]] == seeds
    assert choose(LoadChoice(), (1,))[0].seed != choose(LoadChoice(), (1,))[0].seed


def test_repeats_have_folders_of_their_own(engine_folder, tmp_path):
    args = [str(engine_folder), "--repeat", "2", "--isl", "8", "--osl", "4", "-n", "2", "-q"]
    done = CliRunner().invoke(profile, [*args, "-o", str(tmp_path / "r")])
    assert done.exit_code == 0, done.output
    assert sorted(path.name for path in (tmp_path / "r").glob("c*")) == ["c1", "c1-2"]
    done = CliRunner().invoke(
        profile, ["compare", str(tmp_path / "r"), str(tmp_path / "r"), "--at-given-concurrency"]
    )
    assert done.exit_code == 0, done.output
    assert "1.00 times" in done.stdout


def test_presets():
    assert set(presets()) == {"8k16k", "1k8k", "32k1k", "128k", "agents", "smoke"}
    small, large = choose(LoadChoice(preset="8k16k", isl=100), (2, 8))
    assert (small.isl, small.osl, small.num_requests) == (100, 16384, 4)
    assert (large.concurrency, large.num_requests, large.num_warmup) == (8, 16, 8)
    with pytest.raises(ConfigError, match="did you mean '8k16k'"):
        choose(LoadChoice(preset="8k16"), (1,))


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
    deadline_s = time.monotonic() + 120  # a busy machine takes long to start a process
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
    _, errors = process.communicate(timeout=120)
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
    # the same output is refused until the killed run's folder is given up
    args = [scripted.url, "--tokenizer", "tiny-dense", "-o", str(output), "--isl", "16"]
    done = CliRunner().invoke(profile, [*args, "--osl", "2", "-n", "1"])
    assert done.exit_code == 2
    assert "what a killed run had measured" in done.output
    assert CliRunner().invoke(profile, [*args, "--osl", "2", "-n", "1", "--force"]).exit_code == 0
    assert not (tmp_path / "run.partial").exists()


def test_a_kill_amid_long_answers_leaves_their_tokens(scripted, tmp_path):
    """No request has ended: what came until then still has a rate."""
    process = start(scripted, tmp_path / "run")
    wait_for(
        lambda: scripted.log()["requests"] and len(scripted.log()["requests"][0]["sends_s"]) > 300
    )
    time.sleep(0.6)  # the journal is written four times a second
    process.kill()
    process.communicate()
    result = read_run(tmp_path / "run.partial")
    assert result.status == "interrupted"
    assert len(result.requests[0].arrivals_s) > 300
    assert result.metric("tokens_per_s") > 0
    assert result.metrics["itl_ms"].statistics.count > 300
    assert result.metrics["e2e_latency_ms"].not_computable


def test_a_sweep_compares_its_runs(engine_folder, tmp_path):
    args = [str(engine_folder), "-c", "1,2", "--isl", "8", "--osl", "4", "-n", "2"]
    done = CliRunner().invoke(profile, [*args, "-o", str(tmp_path / "s"), "--json"])
    assert done.exit_code == 0, done.output
    runs = json.loads(done.stdout)["runs"]
    assert [run["workload"]["concurrency"] for run in runs] == [1, 2]
    page = (tmp_path / "s" / "report.html").read_text()
    assert "2 of 2 runs are complete" in page
    assert page.count("<svg") == 3
    # a run of an older sweep must not be taken for one of this
    args = [str(engine_folder), "-c", "1,3", "--isl", "8", "--osl", "4", "-n", "2", "-q"]
    args += ["-o", str(tmp_path / "s")]
    done = CliRunner().invoke(profile, args)
    assert done.exit_code == 2
    assert "holds runs (c1, c2)" in done.output
    assert CliRunner().invoke(profile, [*args, "--force"]).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "s").glob("c*")) == ["c1", "c3"]
    (tmp_path / "s" / "report.html").unlink()
    done = CliRunner().invoke(profile, ["report", str(tmp_path / "s")])
    assert done.exit_code == 0, done.output
    assert "2 of 2 runs" in (tmp_path / "s" / "report.html").read_text()
