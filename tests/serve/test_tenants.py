"""Whose kept prefixes a request may use: salts of API keys, made and kept apart."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from nemotrt.errors import ConfigError
from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.http.access import KEYS_VARIABLE, ApiKeys
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.http.tenants import Tenants, read_tenants
from nemotrt.serve.processes.options import FrontOptions
from nemotrt.serve.requests.limits import MAX_SALT_CHARACTERS, check_salt
from support.saying_upstream import FILES, SayingUpstream

NAMES = ("ada", "adab", "b")


def keys_of(*names: str) -> ApiKeys:
    return ApiKeys(tuple(hashlib.sha256(name.encode()).digest() for name in names))


TENANTS = Tenants(keys_of(*NAMES))
SALTS = st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
ASKERS = st.tuples(st.sampled_from(NAMES), SALTS)


def salt(tenants: Tenants, name: str | None, given: str | None) -> str | None:
    return tenants.salt(None if name is None else f"Bearer {name}", given)


@settings(deadline=None)
@given(ASKERS, ASKERS)
def test_keys_and_salts_never_meet(one, other) -> None:
    """Also where one key's name and salt, joined, are another's."""
    assert (salt(TENANTS, *one) == salt(TENANTS, *other)) == (one == other)


@settings(deadline=None)
@given(ASKERS)
def test_a_salt_is_no_clients_to_make(asker) -> None:
    """It is a code of this process': another one's differs, and it holds nothing of the key."""
    name, given = asker
    made = salt(TENANTS, name, given)
    assert made != salt(Tenants(keys_of(*NAMES)), name, given)
    digest = hashlib.sha256(name.encode()).hexdigest()
    assert made not in (given, name, digest) and digest not in str(made)
    check_salt(made)  # the engine takes it


@settings(deadline=None)
@given(SALTS)
def test_without_keys_and_where_they_share_a_salt_stays_as_it_is(given) -> None:
    assert salt(Tenants(), None, given) == given
    for name in NAMES:
        assert salt(Tenants(keys_of(*NAMES), share_prefixes=True), name, given) == given


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ad", "ada", "Basic ada"])
def test_nobody_without_a_key_has_a_salt(header) -> None:
    with pytest.raises(ApiError):
        TENANTS.salt(header, None)


def test_the_secret_is_not_shown() -> None:
    shown = repr(TENANTS)
    assert TENANTS._secret.hex() not in shown and repr(TENANTS._secret) not in shown
    assert TENANTS._secret != Tenants()._secret and len(TENANTS._secret) >= 16


@pytest.fixture
def upstream() -> SayingUpstream:
    return SayingUpstream()


@pytest.fixture
def client(upstream) -> Iterator[TestClient]:
    with TestClient(create_app(FrontSpec("llm", FILES, upstream, TENANTS))) as client:
        yield client


BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "Hi"}], "n": 2},
    "completions": {"prompt": ["Hi", "Ho"], "n": 2},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_each_request_behind_the_front_has_its_keys_salt(client, upstream, path, stream) -> None:
    found = {}
    for name in NAMES:
        for told in (None, "ours", "s" * MAX_SALT_CHARACTERS):
            upstream.asked.clear()
            body = {"model": "llm", "stream": stream, "cache_salt": told, **BODIES[path]}
            headers = {"Authorization": f"Bearer {name}"}
            assert client.post(f"/v1/{path}", json=body, headers=headers).is_success
            salts = {inputs["cache_salt"] for inputs in upstream.asked}
            assert salts == {salt(TENANTS, name, told)}
            found[name, told] = salts.pop()
    assert len(set(found.values())) == len(found)


def test_keys_that_share_pass_their_salts_on(upstream) -> None:
    tenants = Tenants(keys_of(*NAMES), share_prefixes=True)
    with TestClient(create_app(FrontSpec("llm", FILES, upstream, tenants))) as client:
        for name in NAMES:
            headers = {"Authorization": f"Bearer {name}"}
            body = {"model": "llm", "prompt": "Hi", "cache_salt": "ours"}
            assert client.post("/v1/completions", json=body, headers=headers).is_success
            assert client.post("/v1/completions", json=body).status_code == 401
    assert [inputs["cache_salt"] for inputs in upstream.asked] == ["ours"] * len(NAMES)


def test_to_share_needs_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEYS_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="--share-prefixes is for API keys, and there are none"):
        read_tenants(FrontOptions(share_prefixes=True))
    monkeypatch.setenv(KEYS_VARIABLE, "ada")
    assert read_tenants(FrontOptions(share_prefixes=True)).share_prefixes
    assert not read_tenants(FrontOptions()).share_prefixes
