"""Clients that ask, cancel, stall, leave and ask too much, all at once, for a time."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

NUM_STREAMS = 128
MAX_TOKENS = 32
WORDS = ("The", "engine", "runs", "a", "server", "with", "many", "users", "one", "model")
LOST = ("engine_failed", "engine_unavailable")  # what a client hears when the engine has died


def prompts() -> list[str]:
    rng = random.Random(1)
    head = " ".join(rng.choices(WORDS, k=40))  # what half of them begin with is kept
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(24)]
    return [text if index % 2 else f"{head} {text}" for index, text in enumerate(texts)]


@dataclass
class Storm:
    """What the clients saw: how requests ended, and when each token of the streams arrived.

    Every answer that ends well is compared with its solo run, in `solo` by prompt.
    """

    base_url: str
    solo: dict[str, str]
    may_fail: bool = False  # the engine is going to be killed
    ends: Counter[str] = field(default_factory=Counter)
    arrivals: dict[tuple[int, int], float] = field(default_factory=dict)
    _seeds: Any = field(default_factory=lambda: itertools.count(1))

    def run(self, seconds: float) -> None:
        """Ask for `seconds`, then let what runs come to its end."""
        asyncio.run(self._run(time.monotonic() + seconds))

    async def _run(self, until_s: float) -> None:
        limits = httpx.Limits(max_connections=NUM_STREAMS)
        options: dict[str, Any] = {"base_url": self.base_url, "timeout": 120, "limits": limits}

        async def one_after_another(number: int, client: httpx.AsyncClient) -> None:
            rng = random.Random(number)
            while time.monotonic() < until_s:
                self.ends[await self._one(client, rng)] += 1

        async with httpx.AsyncClient(**options) as client:
            await asyncio.gather(*(one_after_another(i, client) for i in range(NUM_STREAMS)))

    async def _one(self, client: httpx.AsyncClient, rng: random.Random) -> str:
        """Run one request in one of the ways of clients; return how it ended."""
        kind = rng.choices(["whole", "cancel", "stall", "oversize"], [6, 3, 1, 1])[0]
        prompt, seed = rng.choice(list(self.solo)), next(self._seeds)
        body = {"model": "llm", "prompt": prompt, "max_tokens": MAX_TOKENS, "temperature": 0}
        body |= {"ignore_eos": True, "seed": seed}
        if kind == "oversize":
            answer = await client.post("completions", json=body | {"prompt": "x " * 4000})
            return kind if answer.status_code == 400 else self._lost(answer)
        if kind == "whole" and rng.random() < 0.2:
            answer = await client.post("completions", json=body)
            if not answer.is_success:
                return self._lost(answer)
            assert answer.json()["choices"][0]["text"] == self.solo[prompt]
            return kind
        return await self._stream(client, rng, kind, prompt, body)

    async def _stream(
        self, client: httpx.AsyncClient, rng: random.Random, kind: str, prompt: str, body: Any
    ) -> str:
        options = {"continuous_usage_stats": True, "include_usage": True}
        body = body | {"stream": True, "stream_options": options}
        stop_after = rng.randint(0, 20) if kind == "cancel" else 1000
        text, num_events, num_seen = "", 0, 0
        async with client.stream("POST", "completions", json=body) as answer:
            if answer.status_code != 200:
                await answer.aread()
                return self._lost(answer)
            async for line in answer.aiter_lines():
                num_events += 1
                if num_events > stop_after:
                    return kind
                if kind == "stall" and num_events == 2:
                    await asyncio.sleep(rng.random() * 2)
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line[6:])
                if "error" in chunk:
                    return self._failed(chunk["error"])
                text += "".join(choice["text"] for choice in chunk["choices"])
                num_tokens = (chunk.get("usage") or {}).get("completion_tokens", num_seen)
                now_s = time.monotonic()
                for token in range(num_seen + 1, num_tokens + 1) if kind == "whole" else ():
                    self.arrivals[body["seed"], token] = now_s
                num_seen = num_tokens
        assert text == self.solo[prompt], (text, self.solo[prompt])
        return kind

    def _lost(self, answer: httpx.Response) -> str:
        return self._failed(answer.json()["error"])

    def _failed(self, error: dict[str, Any]) -> str:
        assert self.may_fail and error["code"] in LOST, error
        return "lost"
