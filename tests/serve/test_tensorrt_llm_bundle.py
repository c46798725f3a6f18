"""`nemotrt serve BUNDLE`: host, front and the openai client, over the stand-in of the LLM."""

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.tensorrt_llm.process.interpreter import PYTHON_VARIABLE
from nemotrt.engines.opening import OpenEngine
from nemotrt.engines.runtime.sampling.thinking_budget import GRACE_TOKENS
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import RunFolder, ServerState
from support.other_world import World

PROMPT = "The city of"


@pytest.fixture(scope="module")
def server(opened: OpenEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerState]:
    bundle = tmp_path_factory.mktemp("bundle") / "b"
    spec = BuildSpec("tensorrt-llm", "h100", limits=opened.engine.limits)
    build_engine(TINY_MODELS["tiny-dense"], bundle, spec)
    world = World(tmp_path_factory.mktemp("world"))
    with world.chosen() as patch:
        patch.delenv(PYTHON_VARIABLE)
        options = ["--no-triton", "--tensorrt-llm-python", str(world.python)]
        with serve_engine(bundle, *options, drain_s=5) as state:
            yield state


@pytest.fixture
def client(server: ServerState) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.openai_url, api_key="none", max_retries=0) as client:
        yield client


def test_a_stream_is_the_cpu_engines_text(client: openai.OpenAI, solo) -> None:
    expected = solo(PROMPT, max_tokens=40, stop=(" the",))
    stream = client.completions.create(
        model="llm", prompt=PROMPT, max_tokens=40, temperature=0, stop=[" the"], stream=True
    )
    chunks = [choice for chunk in stream for choice in chunk.choices]
    assert "".join(choice.text for choice in chunks) == expected["text"]
    assert chunks[-1].finish_reason == expected["finish_reason"]


def test_usage_and_logprobs(client: openai.OpenAI, solo) -> None:
    expected = solo(PROMPT, max_tokens=5, logprobs=2, ignore_eos=False)
    answer = client.completions.create(
        model="llm", prompt=PROMPT, max_tokens=5, temperature=0, logprobs=2
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == expected["usage"]["completion_tokens"]
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs == pytest.approx([t["logprob"] for t in expected["tokens"]])


def test_what_the_llm_can_not_do_is_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no guided decoding"):
        client.chat.completions.create(
            model="llm",
            messages=[{"role": "user", "content": "hi"}],
            response_format={"type": "json_object"},
        )


def test_a_client_that_leaves_frees_its_place(client: openai.OpenAI, server: ServerState) -> None:
    stream = client.completions.create(
        model="llm",
        prompt=PROMPT,
        max_tokens=900,
        temperature=0,
        stream=True,
        extra_body={"ignore_eos": True},
    )
    next(iter(stream))
    stream.close()
    deadline = time.monotonic() + 20
    while "nemotrt_slots_in_use 0.0" not in httpx.get(_metrics(server)).text:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_thinking_budget_is_kept(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="llm",
        messages=[{"role": "user", "content": "hi"}],
        max_tokens=GRACE_TOKENS + 60,
        temperature=0,
        extra_body={"max_thinking_tokens": 2, "ignore_eos": True},
    )
    message = answer.choices[0].message
    assert answer.usage is not None and answer.usage.completion_tokens == GRACE_TOKENS + 60
    assert message.content  # what comes behind the closing tag


def test_the_server_outlives_the_other_side(client: openai.OpenAI, server: ServerState) -> None:
    """A stream that its death cuts off hears so; the next one comes from a new process."""
    [host] = [
        p for p in psutil.Process(server.pid).children() if "serve.engine.host" in str(p.cmdline())
    ]
    [other] = [p for p in host.children() if "start.py" in str(p.cmdline())]
    children = other.children(recursive=True)
    words = {"model": "llm", "prompt": PROMPT, "max_tokens": 900, "temperature": 0}
    stream = client.completions.create(**words, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    other.kill()
    with pytest.raises(openai.APIError):
        list(stream)
    deadline = time.monotonic() + 60
    while True:
        try:
            answer = client.completions.create(**{**words, "max_tokens": 3})
            break
        except openai.APIError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert answer.choices[0].text
    assert not any(child.is_running() for child in (other, *children))


def test_a_death_between_requests_is_seen_without_one(server: ServerState) -> None:
    """Health says it, and the supervisor starts another engine, as after any other death."""
    health = server.openai_url.removesuffix("/v1") + "/health/ready"
    before = state_now(server)
    host = psutil.Process(before.processes["engine"])
    [other] = [p for p in host.children() if "start.py" in str(p.cmdline())]
    assert httpx.get(health).status_code == 200
    other.kill()
    seen = {200}
    deadline = time.monotonic() + 60
    while seen != {200, 503} or httpx.get(health).status_code != 200:
        seen.add(httpx.get(health, timeout=30).status_code)
        assert time.monotonic() < deadline, seen
        time.sleep(0.02)
    after = state_now(server)
    assert after.restarts["engine"] == before.restarts["engine"] + 1
    assert after.processes["engine"] != host.pid and not host.is_running()


def state_now(server: ServerState) -> ServerState:
    found = RunFolder(Path(server.run_folder)).read_state()
    assert found is not None
    return found


def _metrics(server: ServerState) -> str:
    return server.openai_url.removesuffix("/v1") + "/metrics"
