"""A grammar that can't be kept is refused by the field that it was made of, at every door."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.upstream.upstream import Fields, UpstreamError
from nemotrt.serve.grammar.grammar import GrammarCompiler
from support.saying_upstream import CHAT_BODY, FILES, SayingUpstream

BAD: dict[str, Any] = {"type": "object", "uniqueItems": True, "not": {}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": BAD}}
FUNCTION = {"name": "f", "parameters": BAD}
TOOL = {"type": "function", "function": FUNCTION}
STRICT = {"type": "function", "function": {**FUNCTION, "strict": True}}
OWN: dict[str, Any] = {
    "chat/completions": CHAT_BODY,
    "completions": {"prompt": "Hi"},
    "responses": {"input": "Hi"},
    "messages": {"messages": CHAT_BODY["messages"], "max_tokens": 8},
}
CASES: list[tuple[str, Any, str]] = [
    ("chat/completions", {"response_format": FORMAT}, "response_format.json_schema"),
    ("chat/completions", {"guided_json": BAD}, "guided_json"),
    ("chat/completions", {"tools": [STRICT]}, "tools"),
    ("chat/completions", {"tools": [TOOL], "tool_choice": "required"}, "tools"),
    ("chat/completions", {"functions": [FUNCTION], "function_call": {"name": "f"}}, "functions"),
    ("completions", {"structured_outputs": {"json": BAD}}, "structured_outputs.json"),
    ("completions", {"guided_regex": "(?=a)b"}, "guided_regex"),
    ("responses", {"text": {"format": {"type": "json_schema", "schema": BAD}}}, "text.format"),
    ("responses", {"tools": [{"type": "function", **STRICT["function"]}]}, "tools"),
    ("messages", {"output_config": {"format": {"type": "json_schema", "schema": BAD}}}, ""),
]


class CompilingUpstream(SayingUpstream):
    """Compiles the grammar as the engine's process does, and says nothing."""

    def __init__(self) -> None:
        super().__init__()
        assert FILES.tokenizer is not None
        self._compiler = GrammarCompiler(FILES.tokenizer, FILES.tokenizer.vocab_size, (2,))

    async def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        kind, guide = inputs["guided_decoding_guide_type"], inputs["guided_decoding_guide"]
        try:
            self._compiler.guide(kind, guide)
        except Exception as error:
            raise UpstreamError("invalid_request", str(error)) from error
        raise AssertionError("the grammar is none to be refused")
        yield {}


@pytest.fixture(scope="module")
def http() -> Iterator[TestClient]:
    with TestClient(create_app(FrontSpec("llm", FILES, CompilingUpstream()))) as client:
        yield client


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(("door", "more", "field"), CASES)
def test_the_field_is_named(http, door, more, field, is_stream) -> None:
    answer = http.post(f"/v1/{door}", json={**OWN[door], **more, "stream": is_stream})
    error = answer.json()["error"]
    assert answer.status_code == 400 and "grammar is refused" in error["message"]
    if door == "messages":
        assert error["message"].startswith("output_config.format: ")
    else:
        assert error["param"] == field and error["message"].startswith(f"{field}: ")
