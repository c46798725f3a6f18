"""/tokenize, /detokenize, /version, /ping, /docs, what is refused, and vLLM's metric names."""

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib.metadata import version
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from transformers import AutoTokenizer

from nemotrt.engines.runtime.request import Request, SamplingParams, Token, Update
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.engine.submission import Submission
from nemotrt.serve.engine.telemetry import Telemetry
from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.doors.vllm_metrics import NAMES, vllm_text
from nemotrt.serve.front.http.access import ApiKeys
from nemotrt.serve.front.http.tenants import Tenants
from nemotrt.serve.front.schema.openapi import openapi_document
from nemotrt.wire.request import GenerationRequest
from support.front_routes import routes_of
from support.saying_upstream import FILES, SayingUpstream

SPEC = FrontSpec("llm", FILES, SayingUpstream())
CHAT = [{"role": "user", "content": "Hello there"}]


@pytest.fixture(scope="module")
def http() -> Iterator[TestClient]:
    with TestClient(create_app(SPEC)) as client:
        yield client


@pytest.fixture(scope="module")
def oracle() -> Any:
    return AutoTokenizer.from_pretrained(TINY_MODELS["tiny"])


def asked(http: TestClient, path: str, **body: Any) -> dict[str, Any]:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@settings(deadline=None, max_examples=40)
@given(text=st.text(st.characters(codec="utf-8"), max_size=60), special=st.booleans())
def test_a_texts_tokens_are_transformers(http, oracle, text, special) -> None:
    found = asked(http, "/tokenize", prompt=text, add_special_tokens=special)
    expected = oracle(text, add_special_tokens=special)["input_ids"]
    assert found["tokens"] == expected and found["count"] == len(expected)
    assert found["max_model_len"] == FILES.limits.max_seq_len
    back = asked(http, "/detokenize", tokens=found["tokens"])["prompt"]
    assert back == oracle.decode(expected, clean_up_tokenization_spaces=False)


def test_a_chats_tokens_are_transformers(http, oracle) -> None:
    found = asked(http, "/tokenize", model="llm", messages=CHAT, return_token_strs=True)
    expected = oracle.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
    assert found["tokens"] == oracle(expected, add_special_tokens=False)["input_ids"]
    assert "".join(found["token_strs"]) == expected
    switched = {"enable_thinking": False}
    other = asked(http, "/tokenize", messages=CHAT, chat_template_kwargs=switched)
    assert other["tokens"] != found["tokens"]


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": CHAT}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": "a" * 512 * 65}, "characters"),
        ("/tokenize", {"messages": []}, "messages"),
        ("/detokenize", {"tokens": [1 << 20]}, "1048576"),
        ("/detokenize", {"tokens": [-1]}, "tokens"),
        ("/detokenize", {"tokens": "a"}, "tokens"),
        ("/detokenize", {"tokens": [1] * (1 << 18) + [1]}, "the limit is"),
    ],
)
def test_what_is_wrong_is_a_400(http, path, body, named) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == 400 and named in answer.json()["error"]["message"], answer.text


@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_another_model_is_a_404(http, path) -> None:
    body = {"model": "other", "prompt": "a"} if path == "/tokenize" else {"tokens": [1]}
    assert http.post(path, json=body | {"model": "other"}).status_code == 404


def test_version_and_ping(http) -> None:
    assert http.get("/version").json() == {"version": version("nemotrt")}
    assert http.get("/ping").status_code == http.post("/ping").status_code == 200
    with TestClient(create_app(replace(SPEC, is_draining=lambda: True))) as draining:
        assert draining.get("/ping").status_code == 503
    keys = Tenants(ApiKeys((hashlib.sha256(b"ada").digest(),)))
    with TestClient(create_app(replace(SPEC, tenants=keys))) as locked:
        assert locked.get("/ping").status_code == 200
        for path in ("/version", "/docs", "/openapi.json"):
            assert locked.get(path).status_code == 401


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/v1/rerank", "/v2/rerank", "/rerank", "/v1/score", "/pooling"]
)
def test_what_the_model_is_not_is_said(http, path) -> None:
    error = http.post(path, json={"model": "llm", "input": "a"}).json()["error"]
    assert error["code"] == "not_supported" and "embedding model" in error["message"]


class Page(HTMLParser):
    """What a page loads or runs, and the text that it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        handlers = [name for name in found if name.startswith("on") or name == "style"]
        self.loads += [tag] if tag in ("script", "link", "img", "iframe", "base") else []
        self.loads += [*handlers, *(str(found[n]) for n in ("src", "srcset") if n in found)]
        self.ids |= {str(found["id"])} if "id" in found else set()
        self.links |= {str(found["href"])} if "href" in found else set()

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_of_the_document_needs_nothing_else(http) -> None:
    answer = http.get("/docs")
    page = Page()
    page.feed(answer.text)
    assert not page.loads
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    [style] = re.findall("<style>(.*?)</style>", answer.text, re.DOTALL)
    digest = re.search(r"sha256-([^']+)", policy)
    assert digest and base64.b64decode(digest[1]) == hashlib.sha256(style.encode()).digest()
    assert page.links - {"openapi.json"} == {f"#{name}" for name in page.ids if name} & page.links
    document = openapi_document()
    for path in document["paths"]:
        assert path in page.text
    for name, schema in document["components"]["schemas"].items():
        assert name in page.ids
        assert all(field in page.text for field in schema.get("properties", {}))


def test_the_document_has_every_door() -> None:
    app = create_app(SPEC)
    told = {
        (path, method.upper())
        for path, operations in openapi_document()["paths"].items()
        for method in operations
    }
    routes = {(r.path, m) for r in routes_of(app) for m in r.methods or () if m != "HEAD"}
    plain = {(path.replace("{name:path}", "{name}"), m) for path, m in routes}
    refused = {one for one in plain if one not in told}
    assert told <= plain
    with TestClient(app) as http:
        for path, method in refused:
            assert http.request(method, path, json={}).json()["error"]["code"] == "not_supported"


def telemetry_text() -> str:
    """Return the metrics of requests that ended in every way."""
    telemetry = Telemetry()
    for i, outcome in enumerate(("stop", "stop", "length", "cancelled", "a_fault", "b_fault")):
        request = Request(f"r{i}", (1, 2, 3), SamplingParams(max_tokens=4))
        inputs = GenerationRequest(text_input="x")
        submission = Submission(request, inputs, "", 0.0, None, None, lambda fields: None)
        telemetry.submitted(submission)
        telemetry.admitted(submission)
        telemetry.updated(Update(f"r{i}", (Token(5, "a", None, ()),) * 2), 1.0)
        telemetry.ended(f"r{i}", outcome)
    gauges = {"slots": 8.0, "slots_in_use": 2.0, "waiting_requests": 3.0}
    return telemetry.text(gauges)


def test_vllms_names_say_what_ours_say() -> None:
    text = telemetry_text()
    ours = {f.name: f for f in text_string_to_metric_families(text)}
    found = {f.name: f for f in text_string_to_metric_families(vllm_text(text, "llm"))}
    other = ("prefix_cache", "preemptions", "speculation")  # the engine's own counts
    kept = {n for n in NAMES if any(word in n for word in other)}
    assert set(found) == {NAMES[n] for n in set(NAMES) - kept} | {"vllm:kv_cache_usage_perc"}
    for family in found.values():
        for sample in family.samples:
            assert sample.labels["model_name"] == "llm" and sample.labels["engine"] == "0"
    reasons = {s.labels["finished_reason"]: s.value for s in found["vllm:request_success"].samples}
    assert reasons == {"stop": 2, "length": 1, "abort": 1, "error": 2}
    assert found["vllm:kv_cache_usage_perc"].samples[0].value == 0.25
    for name in set(NAMES) - kept - {"nemotrt_requests"}:
        told = [
            (s.name.removeprefix(name), s.labels.get("le"), s.value) for s in ours[name].samples
        ]
        other = found[NAMES[name]]
        assert told == [
            (s.name.removeprefix(NAMES[name]), s.labels.get("le"), s.value) for s in other.samples
        ]
        assert other.type == ours[name].type


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"prompt": "a " * 5000}),
        ("/tokenize", {"messages": [{"role": "user", "content": "a " * 5000}]}),
        ("/v1/responses/input_tokens", {"input": "a " * 5000}),
        (
            "/v1/chat/completions/input_tokens",
            {"messages": [{"role": "user", "content": "a " * 5000}]},
        ),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "a " * 5000}]}),
    ],
)
def test_what_is_too_long_to_be_counted_has_the_code_of_a_prompt(http, path, body) -> None:
    answer = http.post(path, json=body)
    error = answer.json()["error"]
    code = error["code"] if "code" in error else error["details"]["error_code"]
    assert (answer.status_code, code) == (400, "context_length_exceeded")
