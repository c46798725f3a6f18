"""What is far too long for an engine costs it little: neither read nor tokenized to its end."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.openai.engine_files import read_engine_files
from nemotrt.serve.requests.limits import MAX_BODY_BYTES, check_head, most_body_bytes
from support.examples import up_to

TINY = load_tokenizer(TINY_MODELS["tiny"])


class AbsentUpstream:
    """No request comes so far."""

    async def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


@pytest.mark.parametrize("max_seq_len", [1, 4096, 40_000, 131_072])
def test_the_longest_prompt_fits_its_body(max_seq_len) -> None:
    """Four characters per token as JSON writes those outside of ASCII, or all ids of a prompt."""
    most = most_body_bytes(max_seq_len)
    assert len(json.dumps({"prompt": "語" * 4 * max_seq_len})) <= most <= MAX_BODY_BYTES
    assert len(json.dumps({"prompt": [131_071] * max_seq_len})) <= most


def test_a_larger_body_is_refused_by_its_length(engine_folder) -> None:
    """No byte of it has to come."""
    files = read_engine_files(engine_folder)
    most = most_body_bytes(files.limits.max_seq_len)
    app = create_app(FrontSpec("llm", files, upstream=AbsentUpstream()))

    async def post(length: int) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            headers = {"content-length": str(length), "content-type": "application/json"}
            url = "http://127.0.0.1/v1/completions"
            return await client.post(url, content=b"{}", headers=headers)

    answer = asyncio.run(post(most + 1))
    assert answer.status_code == 413 and str(most) in answer.text
    assert asyncio.run(post(most)).status_code == 400


@settings(deadline=None, max_examples=up_to(200))
@given(text=st.text(max_size=600), repeats=st.integers(1, 40), max_seq_len=st.integers(1, 500))
def test_a_text_is_refused_only_if_it_is_too_long(text, repeats, max_seq_len) -> None:
    text = text * repeats
    lengths: list[int] = []

    def encode(part: str) -> list[int]:
        lengths.append(len(part))
        return TINY.encode(part)

    try:
        check_head(text, max_seq_len, encode)
    except ConfigError:
        assert len(TINY.encode(text)) > max_seq_len
    assert sum(lengths) <= 8 * max_seq_len


def test_a_text_that_is_far_too_long_is_refused_by_its_head() -> None:
    with pytest.raises(ConfigError, match="more than 100 tokens"):
        check_head("a b c d " * 1000, 100, TINY.encode)
