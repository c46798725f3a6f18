"""What a page of another site can do in a browser: nothing, unless the server was told."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.testclient import TestClient

from nemotrt.errors import ConfigError
from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.http.access import ApiKeys
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.http.browsers import HostGate, Hosts, check_json, check_origins, read_hosts
from nemotrt.serve.front.http.tenants import Tenants
from nemotrt.serve.processes.options import FrontOptions
from nemotrt.serve.requests.endpoints import Endpoint
from support.saying_upstream import FILES, SayingUpstream

BODY = {"model": "llm", "prompt": "Hi"}
PAGE = "https://chat.example"
OTHER = "https://evil.example"
ASKED = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


def client(origins: tuple[str, ...] = (), keys: ApiKeys | None = None) -> TestClient:
    tenants = Tenants(keys or ApiKeys())
    spec = FrontSpec("llm", FILES, SayingUpstream(), tenants, cors_origins=origins)
    return TestClient(create_app(spec))


def is_allowed(hosts: Hosts, host: str | None) -> bool:
    try:
        hosts.check(Headers({} if host is None else {"host": host}))
    except ApiError as error:
        assert error.status == 403 and "--allowed-host" in error.message
        return False
    return True


@pytest.mark.parametrize("listens", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost", True),
        ("localhost:9000", True),
        ("LOCALHOST:9000", True),
        ("127.0.0.1:9000", True),
        ("[::1]:9000", True),
        ("[::1]", True),
        ("localhost.", True),
        ("evil.example", False),
        ("evil.example:9000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("[::2]:9000", False),
        ("localhost:9000:80", False),
        ("localhost:x", False),
        ("user@localhost", False),
        ("", False),
        (None, False),
    ],
)
def test_a_loopback_server_answers_to_its_own_names(listens, host, allowed) -> None:
    assert is_allowed(read_hosts(FrontOptions(host=listens)), host) is allowed


def test_a_name_that_is_told_is_allowed_beside_them() -> None:
    hosts = read_hosts(FrontOptions(allowed_host=("nemo.example", "[fe80::1]")))
    for name in ("nemo.example", "NEMO.example:443", "[fe80::1]:9000", "localhost:9000"):
        assert is_allowed(hosts, name)
    assert not is_allowed(hosts, "evil.example")


def test_a_server_for_other_machines_has_any_name_unless_told() -> None:
    for listens in ("0.0.0.0", "::", "192.168.0.4", "nemo.example"):
        assert is_allowed(read_hosts(FrontOptions(host=listens)), "whatever.example")
        told = FrontOptions(host=listens, allowed_host=("nemo.example",))
        assert not is_allowed(read_hosts(told), "whatever.example")
        assert is_allowed(read_hosts(told), "nemo.example")


@settings(deadline=None)
@given(st.text(st.characters(codec="latin-1"), max_size=20))
def test_no_other_text_is_a_name_of_loopback(text) -> None:
    name = text.lower().rpartition(":")[0] if text.rpartition(":")[2].isdigit() else text.lower()
    allowed = is_allowed(Hosts(), text)
    assert not allowed or name.rstrip(":.").rstrip(".") in ("localhost", "127.0.0.1", "[::1]")


@pytest.mark.parametrize("name", ["https://nemo.example", "nemo.example:9000", "", "a b", "a/b"])
def test_what_is_no_name_is_refused(name) -> None:
    with pytest.raises(ConfigError, match="--allowed-host takes a name"):
        read_hosts(FrontOptions(allowed_host=(name,)))


def test_the_gate_stands_before_everything() -> None:
    app = create_app(FrontSpec("llm", FILES, SayingUpstream()))
    with TestClient(HostGate(app, Hosts()), base_url="http://evil.example") as http:
        for path in ("/", "/health", "/v1/models", "/openapi.json", "/nothing"):
            answer = http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "unknown_host")
        assert http.post("/v1/messages", json={}).json()["error"]["type"] == "permission_error"
        assert http.get("/v1/models", headers={"host": "localhost:9000"}).is_success


TYPES = [
    None,
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=application/json",
    "text/plain; application/json",
    "application/jsonp",
    "application/json, text/plain",
]


@pytest.mark.parametrize("path", Endpoint)
def test_a_body_must_be_said_to_be_json(path) -> None:
    with client() as http:
        for kind in TYPES:
            headers = {} if kind is None else {"content-type": kind}
            answer = http.post(path, content=b"{}", headers=headers)
            assert answer.status_code == 415, kind
            assert "application/json" in answer.text
    for kind in ("application/json", "Application/JSON; charset=utf-8", "application/json ;x=y"):
        check_json(Headers({"content-type": kind}))


def test_no_page_reads_an_answer_unless_told() -> None:
    with client() as http:
        answer = http.post("/v1/completions", json=BODY, headers={"Origin": PAGE})
        assert answer.is_success and "access-control-allow-origin" not in answer.headers
        assert http.options("/v1/completions", headers={"Origin": PAGE, **ASKED}).status_code == 405


@pytest.fixture
def told() -> Iterator[TestClient]:
    with client((PAGE, "http://localhost:3000")) as http:
        yield http


@pytest.mark.parametrize("path", Endpoint)
def test_a_page_that_is_told_may_ask_and_no_other(told, path) -> None:
    for origin, allowed in ((PAGE, True), (OTHER, False), ("https://chat.example.evil", False)):
        asked = told.options(path, headers={"Origin": origin, **ASKED})
        answer = told.post(path, json={}, headers={"Origin": origin})
        assert asked.is_success is allowed
        for one in (asked, answer):
            assert (one.headers.get("access-control-allow-origin") == origin) is allowed
            assert "access-control-allow-credentials" not in one.headers
        assert answer.status_code == 400


def test_a_page_asks_before_it_has_a_key_and_reads_why_it_was_refused() -> None:
    keys = ApiKeys((b"x" * 32,))
    with client((PAGE,), keys) as http:
        assert http.options("/v1/completions", headers={"Origin": PAGE, **ASKED}).is_success
        refused = http.post("/v1/completions", json=BODY, headers={"Origin": PAGE})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize("origin", ["chat.example", "https://a/b", "null", "", "https://*.a b"])
def test_what_is_no_origin_is_refused(origin) -> None:
    with pytest.raises(ConfigError, match="--cors-origin takes an origin"):
        check_origins((origin,))
    check_origins((PAGE, "*", "http://localhost:3000", "http://[::1]:3000"))


def test_every_page_may_ask_where_all_are_told() -> None:
    with client(("*",)) as http:
        pairs: Any = itertools.product((PAGE, OTHER), ("/v1/models", "/health"))
        for origin, path in pairs:
            answer = http.get(path, headers={"Origin": origin})
            assert answer.headers["access-control-allow-origin"] == "*"
