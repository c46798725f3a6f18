"""Schemathesis on the published OpenAPI document: every answer is one that the document tells of.

Two of its checks are left out. A schema can't say everything that a body must be (a tool_choice
names one of the tools), and numbers in strings are taken as numbers.
"""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.http.bounded_http import BoundedProtocol
from nemotrt.serve.processes.launcher import serve_engine
from support.described import described
from support.saying_upstream import FILES, SayingUpstream

LEFT_OUT = "positive_data_acceptance,negative_data_rejection"
CHECKS = [
    schemathesis.checks.not_a_server_error,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
DOCUMENT = described()
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]


@pytest.fixture(scope="module")
def front() -> Iterator[str]:
    app = create_app(FrontSpec("llm", FILES, SayingUpstream()))
    config = uvicorn.Config(app, port=0, http=BoundedProtocol, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        pass
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_an_answer_is_as_the_document_says(front, path, method) -> None:
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.config.update(base_url=front)
    operation = schema[path][method]

    @settings(max_examples=3, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy())
    def run(case: schemathesis.Case) -> None:
        case.call_and_validate(checks=CHECKS)

    run()


@pytest.fixture(scope="module", params=["--no-triton", None])
def address(request, engine_folder) -> Iterator[str]:
    options = [request.param] if request.param else []
    with serve_engine(engine_folder, "--threads", "1", *options, drain_s=5) as server:
        yield server.openai_url.removesuffix("/v1")


@pytest.mark.triton
@pytest.mark.slow
def test_no_request_makes_the_server_fail(address, triton_runtime, tmp_path) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(DOCUMENT))
    command = [sys.executable, "-m", "schemathesis.cli", "run", document, "--url", address]
    options = ["--exclude-checks", LEFT_OUT, "--max-examples", "1000", "--workers", "2"]
    options += ["--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure"]
    options += ["--suppress-health-check", "all"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=7200)
    assert done.returncode == 0, done.stdout[-6000:]
    [generated] = re.findall(r"(\d+) generated", done.stdout)
    assert int(generated) >= 10_000, done.stdout[-6000:]
    [covered] = re.findall(r"API Links: +(\d+) covered", done.stdout)
    assert int(covered) > 0, done.stdout[-6000:]
