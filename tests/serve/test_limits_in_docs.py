"""The table of limits says what the code holds to."""

from pathlib import Path

import pytest

from nemotrt.engines.runtime.sampling import limits as sampling_limits
from nemotrt.serve.engine import preparation
from nemotrt.serve.front import workshop
from nemotrt.serve.front.doors.responses import kept
from nemotrt.serve.front.http import access
from nemotrt.serve.front.http.connections import bounded_http
from nemotrt.serve.requests import limits as request_limits
from nemotrt.wire import frames

DOCS = Path(__file__).parents[2] / "docs/reference/http/limits.md"
ROWS = {
    "stop strings": (request_limits.MAX_STOP_STRINGS, request_limits.MAX_STOP_CHARACTERS),
    "stop token ids": (request_limits.MAX_STOP_TOKEN_IDS,),
    "`cache_salt`": (request_limits.MAX_SALT_CHARACTERS,),
    "biases of logits": (sampling_limits.MAX_BIASES, request_limits.MAX_BIAS_CHARACTERS),
    "grammar or JSON schema of an answer": (request_limits.MAX_GUIDE_CHARACTERS,),
    "messages": (request_limits.MAX_MESSAGES, request_limits.MAX_PARTS),
    "tools": (request_limits.MAX_TOOLS,),
    "prompts of a completion": (request_limits.MAX_PROMPTS, request_limits.MAX_CHOICES),
    "prompt ids of all prompts": (request_limits.MAX_PROMPT_IDS,),
    "text of a prompt or chat": (request_limits.MAX_BYTES_PER_TOKEN,),
    "request line and headers": (bounded_http.MAX_HEADERS, bounded_http.MAX_HEAD_BYTES),
    "time for the headers, for the body": (bounded_http.HEAD_S, bounded_http.BODY_S),
    "responses kept for `/v1/responses`, beside `--stored-responses-mib`": (kept.MAX_RESPONSES,),
    "bodies in flight, together": (access.MAX_BODIES,),
    "bodies that wait to be read, requests that wait to be prepared": (
        workshop.MAX_WAITING,
        preparation.MAX_WAITING,
    ),
    "connections": (bounded_http.MAX_CONNECTIONS,),
    "an answer in one piece": (frames.MAX_FRAME_BYTES,),
}


@pytest.mark.parametrize("name", ROWS)
def test_the_docs_have_each_limit(name) -> None:
    (row,) = [line for line in DOCS.read_text().splitlines() if line.startswith(f"| {name} |")]
    assert all(f"{int(value):,}" in row for value in ROWS[name])


def test_the_docs_have_no_limit_of_their_own() -> None:
    table = DOCS.read_text().partition("| limit | value | answer |\n|---|---|---|\n")[2]
    names = [line.split(" | ")[0].removeprefix("| ") for line in table.split("\n\n")[0].split("\n")]
    assert names == list(ROWS)
