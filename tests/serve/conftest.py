"""A real server on loopback over a small engine, and the same engine in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.generation import collect, generate
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import ServerState
from nemotrt.serve.triton.install import install_runtime
from support.saying_upstream import FILES, SayingUpstream

LIMITS = Limits(max_batch_size=8, max_seq_len=1024, chunk_tokens=64)


@pytest.fixture(scope="session")
def engine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve") / "engine"
    build_engine(TINY_MODELS["tiny-dense"], folder, BuildSpec(limits=LIMITS))
    return folder


@pytest.fixture(scope="session")
def opened(engine_folder: Path) -> Iterator[OpenEngine]:
    opened = open_engine(engine_folder, OpenOptions(1))
    yield opened
    opened.engine.close()


@pytest.fixture(scope="session")
def solo(opened: OpenEngine) -> Callable[..., dict[str, Any]]:
    """What the in-process scheduler makes of one prompt alone: the oracle of every server test."""

    def run(prompt: str, *, is_chat: bool = False, **params: Any) -> dict[str, Any]:
        assert opened.tokenizer is not None
        ids = tuple(opened.tokenizer.encode(prompt, add_special_tokens=not is_chat))
        room = opened.engine.limits.max_seq_len - len(ids)
        params["max_tokens"] = min(params.get("max_tokens", room), room)
        return collect(list(generate(opened.scheduler(), ids, SamplingParams(**params))), len(ids))

    return run


@pytest.fixture(scope="session")
def triton_runtime() -> None:
    """The runtime must be there or installable: a test that needs it never skips."""
    install_runtime()


@pytest.fixture
def upstream() -> SayingUpstream:
    return SayingUpstream()


@pytest.fixture
def http(upstream: SayingUpstream) -> Iterator[TestClient]:
    """A front over the upstream, without an engine."""
    with TestClient(create_app(FrontSpec("llm", FILES, upstream))) as client:
        yield client


@pytest.fixture(scope="module")
def server(engine_folder: Path, triton_runtime: None) -> Iterator[ServerState]:
    with serve_engine(engine_folder, "--threads", "1", drain_s=10) as state:
        yield state
