"""What clients of other servers leave out: /v1 in a path, the model's name in a body."""

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.http.access import ApiKeys
from nemotrt.serve.front.http.short_paths import FIRST
from nemotrt.serve.front.http.tenants import Tenants
from nemotrt.serve.requests.endpoints import Endpoint
from support.saying_upstream import FILES, SayingUpstream

USER = [{"role": "user", "content": "What is the time?"}]
BODIES: dict[str, dict[str, Any]] = {  # the least that each door takes
    "/v1/chat/completions": {"messages": USER},
    "/v1/chat/completions/input_tokens": {"messages": USER},
    "/v1/completions": {"prompt": "Now"},
    "/v1/responses": {"input": "What is the time?"},
    "/v1/responses/input_tokens": {"input": "What is the time?"},
    "/v1/messages": {"messages": USER, "max_tokens": 8},
    "/v1/messages/count_tokens": {"messages": USER},
    "/tokenize": {"prompt": "Now"},
    "/detokenize": {"tokens": [1]},
}
CHANGES = {"id", "created", "created_at", "completed_at", "output"}  # from answer to answer


@pytest.fixture(scope="module")
def http() -> Iterator[TestClient]:
    with TestClient(create_app(FrontSpec("llm", FILES, SayingUpstream()))) as client:
        yield client


def answer(http: TestClient, path: str, body: dict[str, Any]) -> dict[str, Any]:
    got = http.post(path, json=body)
    assert got.status_code == 200, got.text
    return {name: value for name, value in got.json().items() if name not in CHANGES}


def test_every_door_has_a_body_here() -> None:
    assert set(BODIES) == set(Endpoint)


@pytest.mark.parametrize("path", BODIES)
def test_a_body_without_a_model_is_answered_by_the_one_that_is_served(path, http) -> None:
    named = answer(http, path, {"model": "llm"} | BODIES[path])
    assert answer(http, path, BODIES[path]) == named
    assert answer(http, path, {"model": None} | BODIES[path]) == named
    assert named.get("model", "llm") == "llm"


@pytest.mark.parametrize("path", BODIES)
def test_another_model_is_still_unknown(path, http) -> None:
    got = http.post(path, json={"model": "gpt-4"} | BODIES[path])
    assert got.status_code == 404 and "gpt-4" in got.text


@pytest.mark.parametrize("path", [path for path in BODIES if path.startswith("/v1/")])
def test_a_path_without_v1_is_the_same_door(path, http) -> None:
    short = path.removeprefix("/v1")
    assert answer(http, short, BODIES[path]) == answer(http, path, BODIES[path])
    wrong = BODIES[path] | {"no_such_field": 1}
    assert http.post(short, json=wrong).json() == http.post(path, json=wrong).json()


@pytest.mark.parametrize("path", ["/models", "/models/llm", "/embeddings", "/models/none"])
def test_so_are_the_paths_without_a_body(path, http) -> None:
    post = path == "/embeddings"
    ask = http.post if post else http.get
    here, there = ask(path), ask(f"/v1{path}")
    assert (here.status_code, here.json()) == (there.status_code, there.json())
    assert here.status_code == {"/embeddings": 400, "/models/none": 404}.get(path, 200)


@pytest.mark.parametrize(
    "path", ["/", "/modelsx", "/chat2/completions", "/v1/v1/models", "/v2/models"]
)
def test_no_other_path_is_another(path, http) -> None:
    assert http.get(path).status_code == (200 if path == "/" else 404)


@pytest.mark.parametrize("path", ["/page", "/page/", "/v1/", "/docs/x/", "/v1/responses/"])
def test_a_slash_leads_nowhere_else(path, http) -> None:
    found = http.get(path, follow_redirects=False)
    assert found.status_code in (404, 405) and "location" not in found.headers


@pytest.mark.parametrize("first", sorted(FIRST))
def test_a_key_is_asked_for_there_too(first) -> None:
    spec = FrontSpec("llm", FILES, SayingUpstream(), tenants=Tenants(ApiKeys((b"a" * 32,))))
    with TestClient(create_app(spec)) as client:
        assert client.post(f"/{first}", json={}).status_code == 401


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
def test_input_tokens_are_those_that_an_answer_counts(path, http) -> None:
    counted = answer(http, f"{path}/input_tokens", BODIES[path])
    tokens = answer(http, "/tokenize", {"messages": USER})
    assert counted["input_tokens"] == tokens["count"] > 0
    cut = BODIES["/v1/chat/completions"] | {"truncate_prompt_tokens": 3}
    told = answer(http, "/v1/chat/completions/input_tokens", cut)
    assert told["input_tokens"] == 3
