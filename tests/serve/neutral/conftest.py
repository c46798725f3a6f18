"""A front over an upstream that says one text."""

import asyncio
from collections.abc import Iterator

import pytest

from nemotrt.serve.front.app import FrontSpec, create_app
from support.saying_upstream import FILES, Client, SayingUpstream


@pytest.fixture
def upstream() -> SayingUpstream:
    return SayingUpstream()


@pytest.fixture
def client(upstream) -> Iterator[Client]:
    with asyncio.Runner() as runner:
        yield Client(create_app(FrontSpec("llm", FILES, upstream)), runner)
