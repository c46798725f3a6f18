"""Whose kept prefixes a request may use, and who is told: over front, Triton and engine."""

import hashlib
import itertools
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai
import pytest
from tritonclient.grpc import service_pb2_grpc

from nemotrt.serve.front.http.access import KEYS_VARIABLE
from nemotrt.serve.front.upstream.triton_upstream import infer_request, output_fields
from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import ServerState

pytestmark = pytest.mark.triton
ADA, BOB = "ada-key", "bob-key"
NEW = 2  # tokens that any two prompts may share: how a text begins
_numbers = itertools.count()


def new_prompt() -> str:
    """A text of some dozen tokens that nobody has sent yet."""
    return f"{next(_numbers)} times " + "the server runs an engine with many users " * 6


@pytest.fixture(scope="module")
def apart(engine_folder, triton_runtime) -> Iterator[ServerState]:
    """A server with two keys."""
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(KEYS_VARIABLE, f"{ADA},{BOB}")
            started = serve_engine(engine_folder, "--threads", "1", drain_s=5)
            state = stack.enter_context(started)
        yield state


def cached(
    server: ServerState, prompt: str, key: str = "none", salt: str | None = None, **more: Any
) -> int | None:
    """What a request had from kept state, None where the server does not say."""
    with openai.OpenAI(base_url=server.openai_url, api_key=key, max_retries=0) as client:
        extra = {} if salt is None else {"cache_salt": salt}
        answer = client.completions.create(
            model="llm", prompt=prompt, max_tokens=2, extra_body=extra, **more
        )
        usage = (list(answer)[-1] if more.get("stream") else answer).usage
    details = usage.prompt_tokens_details
    assert details is None or details.cached_tokens < usage.prompt_tokens
    return None if details is None else details.cached_tokens


def over_triton(server: ServerState, prompt: str, salt: str | None = None) -> dict[str, Any]:
    inputs: dict[str, Any] = {"text_input": prompt, "max_tokens": 2}
    inputs |= {"return_num_input_tokens": True, "stream": True}
    inputs |= {} if salt is None else {"cache_salt": salt}
    with grpc.insecure_channel(server.grpc_url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        requests = iter([infer_request("llm", inputs)])
        answers = list(stub.ModelStreamInfer(requests, timeout=60))
    if answers[0].error_message:
        return {"error": answers[0].error_message}
    found = [output_fields(answer.infer_response) for answer in answers]
    for fields in (found[0], found[-1]):
        assert 0 <= fields["num_cached_tokens"] < fields["num_input_tokens"]
    return found[-1]


def test_a_key_has_its_own_prefixes_alone(apart) -> None:
    prompt = new_prompt()
    assert cached(apart, prompt, ADA) == 0
    own = cached(apart, prompt, ADA)
    assert own > NEW
    assert cached(apart, prompt, BOB) == 0
    assert cached(apart, prompt, BOB) == own
    assert cached(apart, prompt, ADA, "project") == 0
    assert cached(apart, prompt, ADA, "project") == own
    assert cached(apart, prompt, BOB, "project") == 0


def test_triton_s_clients_reach_no_key_s_prefixes(apart) -> None:
    """Whatever they call their salt; by this user's own hand, past the front."""
    prompt = new_prompt()
    assert [cached(apart, prompt, ADA) for _ in range(2)][1] > NEW
    digest = hashlib.sha256(ADA.encode())
    told = digest.hexdigest()
    for salt in (None, ADA, f"Bearer {ADA}", told, told.upper(), digest.digest().hex() + "\0"):
        assert over_triton(apart, prompt, salt)["num_cached_tokens"] <= NEW, salt
    for salt in (None, ADA):  # their own are kept
        assert over_triton(apart, prompt, salt)["num_cached_tokens"] > NEW, salt
    assert cached(apart, prompt, BOB) <= NEW


def test_no_salt_and_no_key_is_in_a_log(apart) -> None:
    cached(apart, new_prompt(), ADA, "project-x")
    for path in Path(apart.run_folder).iterdir():
        if path.is_file():
            text = path.read_bytes()
            assert not re.search(rb"project-x|ada-key|[0-9a-f]{64}", text), path


def test_without_keys_all_share_but_for_their_salts(server) -> None:
    prompt = new_prompt()
    assert cached(server, prompt) <= NEW
    own = cached(server, prompt, stream=True, stream_options={"include_usage": True})
    assert own > NEW
    assert over_triton(server, prompt)["num_cached_tokens"] == own
    assert cached(server, prompt, salt="a") <= NEW
    assert over_triton(server, prompt, "a")["num_cached_tokens"] == own
    assert over_triton(server, prompt, "b")["num_cached_tokens"] <= NEW


def test_forks_of_one_prompt_count_once(server) -> None:
    """Two choices share a prompt, which somebody has to compute."""
    assert cached(server, new_prompt(), n=2) <= NEW


@pytest.mark.parametrize("salt", ["", "s" * 257])
def test_triton_refuses_a_bad_salt_by_name(server, salt) -> None:
    error = over_triton(server, "The", salt)["error"]
    assert error.startswith("invalid_request") and "cache_salt" in error


def metrics(server: ServerState) -> dict[str, float]:
    text = httpx.get(server.openai_url.removesuffix("/v1") + "/metrics").text
    found = re.findall(r"^(nemotrt_(?:prefix_cache|preemptions)\w+) (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


def test_metrics_tell_of_hits(server) -> None:
    prompt = new_prompt()
    cached(server, prompt)
    before = metrics(server)
    hit = cached(server, prompt)
    after = metrics(server)
    name = "nemotrt_prefix_cache_hit_tokens_total"
    assert after[name] - before[name] == hit
    assert 0 < after["nemotrt_prefix_cache_bytes"] <= after["nemotrt_prefix_cache_limit_bytes"]
    assert after["nemotrt_prefix_cache_saved_seconds_total"] > 0
    assert after["nemotrt_preemptions_total"] == 0
