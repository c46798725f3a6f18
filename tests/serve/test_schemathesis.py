"""Schemathesis on the published OpenAPI document: no request may make the server fail."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotrt.serve.processes.launcher import serve_engine

pytestmark = [pytest.mark.triton, pytest.mark.slow]


@pytest.fixture(scope="module")
def address(engine_folder, triton_runtime) -> Iterator[str]:
    with serve_engine(engine_folder, "--threads", "1", drain_s=5) as server:
        yield server.openai_url.removesuffix("/v1")


def test_no_request_makes_the_server_fail(address) -> None:
    command = [Path(sys.executable).parent / "schemathesis", "run", f"{address}/openapi.json"]
    checks = "not_a_server_error,status_code_conformance,response_schema_conformance"
    options = ["--checks", checks, "--max-examples", "5000", "--workers", "2"]
    options += ["--phases", "examples,coverage,fuzzing"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=7200)
    assert done.returncode == 0, done.stdout[-6000:]
    [generated] = re.findall(r"(\d+) generated", done.stdout)
    assert int(generated) >= 10_000, done.stdout[-6000:]
