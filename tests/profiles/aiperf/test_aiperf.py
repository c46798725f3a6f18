"""AIPerf as the driver: a stand-in for what we make of its records, and (slow) the real one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from nemotrt.profiles.command import profile
from nemotrt.profiles.load.targets.opening import open_target
from nemotrt.profiles.load.targets.options import TargetOptions
from nemotrt.profiles.load.workload import Arrival, TraceEntry, Workload
from nemotrt.profiles.runs.aiperf.invocation import arguments, write_dataset, write_tokenizer
from nemotrt.profiles.runs.record.result import read_result

LOAD = ("--isl", "16", "--osl", "8", "-c", "2", "-n", "6", "--tokenizer", "tiny-dense")


@pytest.fixture
def standin(tmp_path):
    path = tmp_path / "aiperf"
    source = Path(__file__).with_name("standin.py").read_text()
    path.write_text(f"#!{sys.executable}\n{source}")
    path.chmod(0o755)
    return path


def run(scripted, tmp_path, program, *more):
    args = [f"{scripted.url}/v1", "--driver", "aiperf", "--aiperf", str(program), *LOAD]
    done = CliRunner().invoke(profile, [*args, "-o", str(tmp_path / "run"), *more])
    return done, tmp_path / "run"


def test_its_records_are_our_result(scripted, standin, tmp_path):
    """Two users, 10 ms a token, 8 tokens, 1 ms between requests: checked in the head."""
    done, folder = run(scripted, tmp_path, standin)
    assert done.exit_code == 0, done.output
    result = read_result(folder)
    assert result.driver.name == "aiperf"
    assert [r.phase for r in result.requests].count("warm-up") == 2
    assert [r.index for r in result.requests if r.phase == "measured"] == list(range(2, 8))
    assert result.metric("ttft_ms") == pytest.approx(10, abs=0.01)
    assert result.metric("tpot_ms") == pytest.approx(10, abs=0.01)
    assert result.metric("e2e_latency_ms", "p99") == pytest.approx(80, abs=0.01)
    # 16 tokens in 81 ms, from the warm-up's end until the last request is sent
    assert result.metric("tokens_per_s") == pytest.approx(16 / 0.081, rel=0.02)
    assert "does not tell" in result.metrics["driver_cpu_us_per_token"].not_computable


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ({"fault": "short"}, "brought 7 tokens in 7 responses where 8 were asked for"),
        ({"fault": "isl"}, "read 17 prompt tokens where 16 were meant"),
        ({"fault": "die"}, "AIPerf failed with code 1:\n05:13 ERROR no server"),
    ],
)
def test_a_fault_fails_the_run(scripted, standin, tmp_path, monkeypatch, script, reason):
    monkeypatch.setenv("AIPERF_STANDIN", json.dumps(script))
    done, folder = run(scripted, tmp_path, standin)
    assert done.exit_code == 1
    assert reason in done.output
    assert read_result(folder).status == "failed"


@pytest.mark.parametrize("trap", ["", "trap '' INT;"], ids=["foreground", "background"])
def test_an_interrupt_keeps_what_it_recorded(scripted, standin, tmp_path, trap):
    """What a script starts with `&` ignores SIGINT; AIPerf, which we interrupt, must not."""
    flag = tmp_path / "flag"
    script = {"fault": "hang", "flag": str(flag)}
    command = [sys.executable, "-m", "nemotrt", "profile", f"{scripted.url}/v1", *LOAD, "-q"]
    command += ["--driver", "aiperf", "--aiperf", str(standin), "-o", str(tmp_path / "run")]
    command = ["bash", "-c", f'{trap} exec "$@"', "-", *command]
    process = subprocess.Popen(command, env=os.environ | {"AIPERF_STANDIN": json.dumps(script)})
    deadline_s = time.monotonic() + 60
    while not flag.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM if trap else signal.SIGINT)
    assert process.wait(timeout=60) == 130
    result = read_result(tmp_path / "run")
    assert result.status == "interrupted"
    assert len(result.requests) == 5


def test_without_aiperf_it_says_how_to_get_it(scripted, tmp_path):
    done, folder = run(scripted, tmp_path, "no-such-aiperf")
    assert done.exit_code == 3
    assert "pip install aiperf" in done.output
    assert not folder.exists()


@pytest.mark.parametrize("kind", ["http", "grpc", "engine"])
def test_what_aiperf_cannot_measure_is_refused(
    scripted, scripted_grpc, engine_folder, standin, tmp_path, kind
):
    target = {"http": scripted.url, "grpc": scripted_grpc.url, "engine": str(engine_folder)}[kind]
    args = [target, "--driver", "aiperf", "--aiperf", str(standin), *LOAD]
    done = CliRunner().invoke(profile, [*args, "-o", str(tmp_path / "run")])
    assert done.exit_code == 2
    for part in ("could not count", "with /v1 at the end, or leave out --driver"):
        assert part in " ".join(done.output.split())
    assert not (tmp_path / "run").exists()


def dataset(tmp_path, workload):
    options = TargetOptions(tokenizer="tiny-dense", extra={"min_tokens": None, "top_k": 1})
    target = open_target("http://127.0.0.1:1/v1", workload, options)
    prompts = [target.prompt(i, workload.isl) for i in range(len(workload.trace) or 6)]
    write_dataset(tmp_path / "d.jsonl", target.openai, workload, prompts)
    lines = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    paths = (tmp_path / name for name in ("d.jsonl", "tokenizer", "out"))
    return lines, arguments(target.openai, workload, *paths)


def test_the_dataset_is_our_schedule(tmp_path):
    lines, found = dataset(tmp_path, Workload(16, 8, 4, concurrency=2, num_warmup=2))
    assert [line["output_length"] for line in lines] == [4, 8, 8, 8, 8, 8]
    assert len({line["text"] for line in lines}) == 6
    assert lines[0]["extra"]["max_tokens"] == 4
    assert lines[0]["extra"]["top_k"] == 1
    assert "min_tokens" not in lines[0]["extra"]
    assert found[-6:] == [
        *("--request-count", "4", "--warmup-request-count", "2", "--concurrency", "2")
    ]


def test_the_tokenizer_is_what_transformers_loads(tmp_path):
    """AIPerf loads it so, without a network."""
    from transformers import AutoTokenizer

    target = open_target(
        "http://127.0.0.1:1/v1", Workload(8, 8, 1), TargetOptions(tokenizer="tiny")
    )
    write_tokenizer(tmp_path / "t", target.openai)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "t")
    text = target.prompt(0, 40).text
    assert loaded.encode(text) == target.openai.tokenizer.encode(text)


def test_open_loops_and_traces(tmp_path):
    paced = Workload(16, 8, 6, num_warmup=0, arrival=Arrival.POISSON, requests_per_s=2.5)
    assert dataset(tmp_path, paced)[1][-4:] == [
        *("--request-rate", "2.5", "--arrival-pattern", "poisson")
    ]
    entries = (TraceEntry(0.0, 16, 3), TraceEntry(0.25, 16, 5))
    lines, found = dataset(
        tmp_path, Workload(16, 5, 2, num_warmup=0, arrival=Arrival.TRACE, trace=entries)
    )
    assert [(line["timestamp"], line["output_length"]) for line in lines] == [(0, 3), (250, 5)]
    assert found[-1] == "--fixed-schedule"


@pytest.mark.slow
def test_the_real_aiperf_measures_what_we_measure(scripted, real_aiperf, tmp_path):
    """The same server, prompts and load: 20 ms to the first token, 10 ms a token, 4 users.

    One comparison of three must agree: other work on the machine delays each tool in its own way.
    """
    script = ["--extra", 'script={"ttft_ms": 20, "itl_ms": 10, "num_input_tokens": 16}']
    load = ["--isl", "16", "--osl", "32", "-c", "4", "-n", "24", "--tokenizer", "tiny-dense"]
    tools = (("own", ()), ("aiperf", ("--driver", "aiperf", "--aiperf", real_aiperf)))
    misses = []
    for _ in range(3):
        results = []
        for name, driver in tools:
            args = [f"{scripted.url}/v1", *load, *script, *driver, "-o", str(tmp_path / name)]
            done = CliRunner().invoke(profile, [*args, "--force"])
            assert done.exit_code == 0, done.output
            results.append(read_result(tmp_path / name))
        misses = disagreements(*results)
        if not misses:
            return
    pytest.fail(f"ours, AIPerf's: {misses}")


def disagreements(own, other):
    """Return the medians that differ by more than a tool's own delays; its users wait a little."""
    limits = [("ttft_ms", 5), ("itl_ms", 2), ("tpot_ms", 1), ("e2e_latency_ms", 10)]
    limits += [("tokens_per_s", 0.1 * own.metric("tokens_per_s"))]
    pairs = [(name, own.metric(name), other.metric(name), slack) for name, slack in limits]
    return [pair for pair in pairs if abs(pair[1] - pair[2]) > pair[3]]
