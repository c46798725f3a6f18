"""The front over an upstream that says what it is told."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from nemotrt.serve.front.app import FrontSpec, create_app
from support.saying_upstream import FILES, SayingUpstream


@pytest.fixture
def upstream() -> SayingUpstream:
    return SayingUpstream()


@pytest.fixture
def client(upstream) -> Iterator[TestClient]:
    spec = FrontSpec("llm", FILES, upstream)
    with TestClient(create_app(spec), raise_server_exceptions=False) as client:
        yield client
