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
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.python import asgi
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.http.connections.bounded_http import BoundedProtocol
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


# Bodies take most: a path or a query has little to say. To think of a body takes far longer than
# to answer it, so each is sent again with one thing changed.
NUM_OF_A_BODY = 180
NUM_OF_OTHERS = 60
NUM_LEFT_OUT = 4


@pytest.fixture(scope="module")
def in_process() -> Iterator[asgi.ASGIClient]:
    """The app without sockets, over an upstream that answers at once: a request takes 20 ms."""
    app = create_app(FrontSpec("llm", FILES, SayingUpstream(), stored_responses_bytes=1 << 20))
    with asgi.get_client(app) as client:
        yield client


def variants(case: schemathesis.Case) -> Iterator[schemathesis.Case]:
    """Yield a case, the same streamed or not, and the same without one of a few fields."""
    yield case
    body = case.body
    if not isinstance(body, dict) or not body:
        return
    names = sorted(body)
    less = [
        {k: v for k, v in body.items() if k != n} for n in names[:: -(-len(names) // NUM_LEFT_OUT)]
    ]
    for other in ({**body, "stream": body.get("stream") is not True}, *less):
        yield schemathesis.Case(
            case.operation,
            case.method,
            case.path,
            path_parameters=case.path_parameters,
            headers=case.headers,
            cookies=case.cookies,
            query=case.query,
            body=other,
            media_type=case.media_type,
        )


def asked(client: asgi.ASGIClient, path: str, method: str, mode: GenerationMode) -> int:
    """Ask one operation as often as its body deserves; return how many requests there were."""
    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.app = client.app
    schema.config.update(base_url="http://localhost")
    operation = schema[path][method]
    has_body = "requestBody" in DOCUMENT["paths"][path][method]
    statuses: list[int] = []

    @settings(
        max_examples=NUM_OF_A_BODY if has_body else NUM_OF_OTHERS,
        suppress_health_check=list(HealthCheck),
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: schemathesis.Case) -> None:
        for one in variants(case):
            answer = one.call(session=client)
            statuses.append(answer.status_code)
            one.validate_response(answer, checks=CHECKS)

    run()
    if mode is GenerationMode.POSITIVE and has_body:
        assert {200, 400} <= set(statuses), path  # neither side of a door is untried
    return len(statuses)


@pytest.mark.slow
def test_ten_thousand_requests_are_answered_as_the_document_says(in_process) -> None:
    count = 0
    for path, method in OPERATIONS:
        count += asked(in_process, path, method, GenerationMode.POSITIVE)
        if "requestBody" in DOCUMENT["paths"][path][method]:
            count += asked(in_process, path, method, GenerationMode.NEGATIVE)
    assert count >= 10_000


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
    options = ["--exclude-checks", LEFT_OUT, "--max-examples", "20", "--workers", "2"]
    options += ["--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure"]
    options += ["--suppress-health-check", "all"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=7200)
    assert done.returncode == 0, done.stdout[-6000:]
    [generated] = re.findall(r"(\d+) generated", done.stdout)
    assert int(generated) >= 500, done.stdout[-6000:]  # the many are asked in process
    [covered] = re.findall(r"API Links: +(\d+) covered", done.stdout)
    assert int(covered) > 0, done.stdout[-6000:]
