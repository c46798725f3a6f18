"""Runs one client's checks against a server; prints a line of JSON for each.

usage: python use_CLIENT.py BASE_URL      # in the environment that has the client
"""

import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

import httpx

MODEL = "llm"
KEY = "none"
CHECKS: list[Callable[[], None]] = []


def check(function: Callable[[], None]) -> Callable[[], None]:
    """Have `function` run by `main`."""
    CHECKS.append(function)
    return function


def base_url() -> str:
    """Return the server's address, with /v1."""
    return sys.argv[1]


def plain(path: str, **body: Any) -> dict[str, Any]:
    """Return what the server answers to a body that no client has touched: the oracle."""
    answer = httpx.post(f"{base_url()}/{path}", json={"model": MODEL} | body, timeout=300)
    answer.raise_for_status()
    result: dict[str, Any] = answer.json()
    return result


def plain_chat(text: str, **body: Any) -> str:
    """Return the content of a plain chat answer to one user turn."""
    messages = [{"role": "user", "content": text}]
    answer = plain("chat/completions", messages=messages, **body)
    content: str = answer["choices"][0]["message"]["content"]
    return content


def main() -> None:
    """Run every check; a fault of one leaves the others alone."""
    for function in CHECKS:
        fault = ""
        try:
            function()
        except BaseException:
            fault = traceback.format_exc()[-3000:]
        print(json.dumps({"check": function.__name__, "fault": fault}), flush=True)
