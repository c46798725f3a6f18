"""Others' load generators, unchanged, against both doors; each from the package index."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.peers import peer_python
from support.perf_analyzer import perf_analyzer

pytestmark = [pytest.mark.triton, pytest.mark.slow]
NUM_REQUESTS = 8
NUM_TOKENS = 12


def run(command: list[Any], folder: Path, **env: str) -> str:
    """Return what a program says; it must end well."""
    online = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=900,
        cwd=folder,
        env=online | env,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-5000:]
    return said


def measured(record: Path) -> list[Any]:
    """Return the requests that perf_analyzer's record has."""
    told = json.loads(record.read_text("utf-8"))
    return [request for one in told["experiments"] for request in one["requests"]]


def test_perf_analyzer_over_grpc_streams(server, tmp_path) -> None:
    fields = {"text_input": ["The sea is"], "max_tokens": [NUM_TOKENS], "stream": [True]}
    data, record = tmp_path / "data.json", tmp_path / "record.json"
    data.write_text(json.dumps({"data": [fields]}))
    command = [perf_analyzer(), "-m", "llm", "-i", "grpc", "-u", server.grpc_url, "--streaming"]
    command += ["--async", "--input-data", data, "--request-count", NUM_REQUESTS]
    command += ["--concurrency-range", 2, "--profile-export-file", record]
    run(command, tmp_path)
    requests = measured(record)
    assert len(requests) >= NUM_REQUESTS
    assert all(len(request["response_timestamps"]) > 1 for request in requests)


def test_perf_analyzer_at_openais_door(server, tmp_path) -> None:
    body = {"model": "llm", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    data, record = tmp_path / "data.json", tmp_path / "record.json"
    payload = {"payload": [{**body, "max_tokens": NUM_TOKENS}]}
    data.write_text(json.dumps({"data": [payload]}))
    command = [perf_analyzer(), "-m", "llm", "--service-kind", "openai", "--async"]
    command += ["-u", server.openai_url.removesuffix("/v1"), "--input-data", data]
    command += ["--endpoint", "v1/chat/completions", "--request-count", NUM_REQUESTS]
    command += ["--concurrency-range", 2, "--profile-export-file", record]
    run(command, tmp_path)
    assert len(measured(record)) >= NUM_REQUESTS


@pytest.mark.parametrize("door", ["triton", "chat", "completions"])
def test_genai_perf(server, engine_folder, tmp_path, door) -> None:
    program = peer_python("genai_perf").with_name("genai-perf")
    command = [program, "profile", "-m", "llm", "--tokenizer", engine_folder, "--streaming"]
    command += ["--synthetic-input-tokens-mean", 20, "--synthetic-input-tokens-stddev", 0]
    command += ["--output-tokens-mean", NUM_TOKENS, "--request-count", NUM_REQUESTS]
    command += ["--concurrency", 2, "--artifact-dir", tmp_path / "out"]
    if door == "triton":
        command += ["--backend", "tensorrtllm", "--url", server.grpc_url]
    else:
        command += ["--endpoint-type", door, "--url", server.openai_url.removesuffix("/v1")]
    if door == "chat":  # it counts what is content, and a short answer here is all trace
        command += ["--extra-inputs", "separate_reasoning:false"]
    path = f"{perf_analyzer().parent}{os.pathsep}{os.environ['PATH']}"
    run(command, tmp_path, PATH=path)
    [summary] = (tmp_path / "out").rglob("*_genai_perf.json")
    told = json.loads(summary.read_text("utf-8"))
    assert told["time_to_first_token"]["min"] > 0
    assert 0 < told["output_sequence_length"]["avg"] <= NUM_TOKENS + 2


def test_guidellm(server, engine_folder, tmp_path) -> None:
    program = peer_python("guidellm").with_name("guidellm")
    target, record = server.openai_url.removesuffix("/v1"), tmp_path / "out.json"
    told = {
        "backend": f"kind=openai_http,target={target},model=llm",
        "profile": "kind=concurrent,streams=2",
        "constraint": f"kind=max_requests,count={NUM_REQUESTS}",
        "tokenizer": f"kind=hf_auto,model={engine_folder}",
        "data": f"kind=synthetic_text,prompt_tokens=20,output_tokens={NUM_TOKENS}",
        "output": f"kind=json,path={record}",
    }
    options = [part for name, value in told.items() for part in (f"--{name}", value)]
    run([program, "run", *options, "--disable-console"], tmp_path)
    [benchmark] = json.loads(record.read_text("utf-8"))["benchmarks"]
    requests = benchmark["requests"]
    assert len(requests["successful"]) == NUM_REQUESTS and not requests["errored"]
    for request in requests["successful"]:
        assert request["output_tokens"] == NUM_TOKENS


def test_evalscope(server, engine_folder, tmp_path) -> None:
    program = peer_python("evalscope").with_name("evalscope")
    command = [program, "perf", "--api", "openai", "--model", "llm", "--stream"]
    command += ["--url", f"{server.openai_url}/chat/completions", "--dataset", "random"]
    command += ["--tokenizer-path", engine_folder, "--number", NUM_REQUESTS, "--parallel", 2]
    command += ["--min-prompt-length", 20, "--max-prompt-length", 20]
    command += ["--max-tokens", NUM_TOKENS, "--outputs-dir", tmp_path / "out"]
    said = run(command, tmp_path)
    counts = re.search(r"Total / Success / Failed\D+(\d+) / (\d+) / (\d+)", said)
    assert counts is not None and counts.groups() == (str(NUM_REQUESTS), str(NUM_REQUESTS), "0")
