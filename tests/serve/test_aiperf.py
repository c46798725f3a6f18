"""NVIDIA's aiperf against both endpoints; it needs an environment of its own, made at first use."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

from nemotrt.serve.processes.run_folder import ServerState

pytestmark = [pytest.mark.triton, pytest.mark.slow]
VERSION = "0.13.0"
NUM_REQUESTS = 64
NUM_TOKENS = 40


@pytest.fixture(scope="module")
def aiperf() -> Path:
    """The program: $AIPERF, on the PATH, or installed beside the Triton runtime (1.2 GB)."""
    given = os.environ.get("AIPERF") or shutil.which("aiperf")
    folder = Path(sys.prefix) / "share" / "nemotrt" / f"aiperf-{VERSION}"
    program = Path(given) if given else folder / "bin" / "aiperf"
    if not program.is_file():
        venv.create(folder, with_pip=True, clear=True)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, f"aiperf=={VERSION}"], check=True, timeout=3000)
    return program


def profile(
    aiperf: Path, server: ServerState, engine_folder: Path, output: Path, *options: str
) -> Any:
    """Return aiperf's own summary."""
    command = [aiperf, "profile", "--model", "llm", "--streaming", "--tokenizer", engine_folder]
    command += ["--synthetic-input-tokens-mean", "64", "--synthetic-input-tokens-stddev", "0"]
    command += ["--output-tokens-mean", str(NUM_TOKENS), "--output-tokens-stddev", "0"]
    command += ["--concurrency", "8", "--request-count", str(NUM_REQUESTS), "--random-seed", "1"]
    command += ["--ui", "none", "--server-metrics", server.metrics_url]
    command += ["--output-artifact-dir", output, *options]
    online = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    done = subprocess.run(  # offline it takes the tokenizer's folder for a name on the hub
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=900,
        cwd=output.parent,
        env=online,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    [summary] = output.rglob("profile_export_aiperf.json")
    return json.loads(summary.read_text())


def check(summary: Any) -> None:
    assert summary["request_count"]["avg"] == NUM_REQUESTS
    assert not summary.get("error_request_count", {}).get("avg"), summary["error_summary"]
    assert summary["time_to_first_token"]["min"] > 0
    assert summary["output_token_throughput"]["avg"] > 0


def test_the_openai_endpoint(aiperf, server, engine_folder, tmp_path) -> None:
    options = ("--endpoint-type", "chat", "--url", server.openai_url.removesuffix("/v1"))
    options += ("--extra-inputs", "ignore_eos:true", "--use-server-token-count")
    summary = profile(aiperf, server, engine_folder, tmp_path / "out", *options)
    check(summary)
    assert summary["output_sequence_length"]["avg"] == NUM_TOKENS


def test_tritons_generate_stream(aiperf, server, engine_folder, tmp_path) -> None:
    template = tmp_path / "generate.j2"
    template.write_text(
        '{"text_input": {{ text|tojson }}, "max_tokens": {{ max_tokens or 40 }}, '
        '"stream": true, "ignore_eos": true}'
    )
    options = ("--endpoint-type", "template", "--url", server.http_url)
    options += ("--custom-endpoint", "/v2/models/llm/generate_stream")
    options += ("--extra-inputs", f"payload_template:{template}")
    options += ("--extra-inputs", "response_field:text_output")
    check(profile(aiperf, server, engine_folder, tmp_path / "out", *options))
