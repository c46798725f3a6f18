"""The chat page's server, whose model says what it is told, and what a test does on the page."""

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from playwright.sync_api import ConsoleMessage, Page, Request, expect

from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.http.access import ApiKeys
from nemotrt.serve.front.http.tenants import Tenants
from nemotrt.serve.front.upstream.upstream import Fields, UpstreamError
from support.saying_upstream import FILES, SayingUpstream

expect.set_options(timeout=20_000)  # the machine may be busy


class Script(SayingUpstream):
    """Says what a test has told it, one text a request; then "Hello." """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.cached: int | None = None

    def say(self, *lines: str) -> None:
        self.lines += lines

    async def generate(self, inputs: Fields) -> AsyncIterator[Fields]:
        self.said = self.lines.pop(0) if self.lines else "</think>\n\nHello."
        if self.said == "FAIL":
            raise UpstreamError("engine_failed", "told to fail")
        async for fields in super().generate(inputs):
            if fields.get("final") and self.cached is not None:
                fields["num_cached_tokens"] = self.cached
            yield fields


class Server:
    """An application in a thread of this process."""

    def __init__(self, script: Script, keys: tuple[bytes, ...] = ()) -> None:
        app = create_app(FrontSpec("llm", FILES, script, Tenants(ApiKeys(keys)), aliases=("nemo",)))
        config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=asyncio.run, args=(self._server.serve(),))

    def __enter__(self) -> str:
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        return f"http://localhost:{port}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()


def is_fault(told: ConsoleMessage) -> bool:
    """Whether the page did something wrong; a refusal by the server is none of its faults."""
    return told.type in ("error", "warning") and "Failed to load resource" not in told.text


def ask(page: Page, text: str) -> None:
    page.fill("#prompt", text)
    page.press("#prompt", "Enter")


def wait(page: Page) -> None:
    """Wait until nothing is on its way."""
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator("#send")).to_be_enabled()


def turns(page: Page) -> list[str]:
    """What has been said, in order."""
    return [
        text.strip() for text in page.locator(".turn > .text, .turn > .content").all_inner_texts()
    ]


def sent(page: Page) -> list[dict[str, Any]]:
    """The bodies of the requests for an answer from now on."""
    bodies: list[dict[str, Any]] = []

    def keep(request: Request) -> None:
        if re.search("/v1/chat/completions$", request.url):
            bodies.append(request.post_data_json)

    page.on("request", keep)
    return bodies
