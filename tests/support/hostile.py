"""Clients that make a server work for them alone, each in one way; and a quiet one that measures.

`python -m support.hostile URL SECONDS KIND` runs one of them over loopback until its time is over.
"""

import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

from nemotrt.serve.processes.give_way import give_way

CONCURRENCY = 4  # connections of a hostile client
TEXT = {"model": "llm", "prompt": "The", "max_tokens": 16}


def properties(count: int, salt: int) -> dict[str, Any]:
    names = [f"p{salt}_{i}" for i in range(count)]
    fields = {name: {"type": "string"} for name in names}
    return {"type": "object", "properties": fields, "required": names}


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "llm", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8} | more


def with_schema(schema: dict[str, Any]) -> dict[str, Any]:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return chat(response_format=wanted)


def with_tool(schema: dict[str, Any]) -> dict[str, Any]:
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    return chat(tools=[tool], tool_choice="required")


def turns(count: int) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": "x"} for i in range(count)]


Body = Callable[[random.Random], dict[str, Any]]
BODIES: dict[str, Body] = {
    "schema of 4,000 properties": lambda r: with_schema(properties(4000, r.randrange(10**6))),
    "schema of 300 properties": lambda r: with_schema(properties(300, r.randrange(10**6))),
    "forced tool of 4,000 properties": lambda r: with_tool(properties(4000, r.randrange(10**6))),
    "pattern that explodes": lambda r: with_schema(
        {"type": "string", "pattern": f"^((((a{{{90 + r.randrange(20)}}}){{100}}){{100}}){{100}})$"}
    ),
    "200,000 stop strings": lambda r: TEXT | {"stop": [f"{i:x}z" for i in range(200_000)]},
    "all the stop strings": lambda r: TEXT | {"stop": ["a" * 127 + chr(r.randrange(99, 999))] * 64},
    "3,000,000 prompt ids": lambda r: TEXT | {"prompt": [1] * 3_000_000},
    "a body of 15 MB": lambda r: TEXT | {"prompt": "word " * 3_000_000},
    "400,000 messages": lambda r: chat(messages=turns(400_000)),
    "all the messages": lambda r: chat(messages=turns(4096)),
    "deep JSON": lambda r: TEXT | {"user": [[]]},  # see encoded()
}


def encoded(kind: str, rng: random.Random) -> bytes:
    raw = json.dumps(BODIES[kind](rng)).encode()
    return raw.replace(b"[[]]", b"[" * 5_000_000 + b"]" * 5_000_000) if kind == "deep JSON" else raw


async def post(url: str, until_s: float, kind: str) -> Counter[Any]:
    """Ask for the same again and again; return how the answers ended."""
    ends: Counter[Any] = Counter()
    path = "chat/completions" if b'"messages"' in encoded(kind, random.Random(0)) else "completions"

    async def ask(number: int) -> None:
        rng = random.Random(number)
        async with httpx.AsyncClient(timeout=120) as client:
            while time.monotonic() < until_s:
                body = encoded(kind, rng)
                try:
                    answer = await client.post(f"{url}/{path}", content=body, headers=JSON)
                    ends[answer.status_code] += 1
                except httpx.TransportError as error:
                    ends[type(error).__name__] += 1

    await asyncio.gather(*(ask(number) for number in range(CONCURRENCY)))
    return ends


def address(url: str) -> tuple[str, int]:
    parsed = httpx.URL(url)
    return parsed.host, parsed.port or 80


async def raw(url: str, until_s: float, pieces: list[bytes], connections: int) -> Counter[Any]:
    """Send the last piece again and again, on many connections; return how they ended."""
    ends: Counter[Any] = Counter()

    async def drip() -> None:
        while time.monotonic() < until_s:
            try:
                _, writer = await asyncio.open_connection(*address(url))
                for piece in pieces:
                    writer.write(piece)
                while time.monotonic() < until_s and not writer.transport.is_closing():
                    writer.write(pieces[-1])
                    await asyncio.wait_for(writer.drain(), 5)
                    await asyncio.sleep(0.1)
                ends["closed"] += 1
                writer.close()
            except (OSError, TimeoutError) as error:
                ends[type(error).__name__] += 1
                await asyncio.sleep(0.1)

    await asyncio.gather(*(drip() for _ in range(connections)))
    return ends


JSON = {"content-type": "application/json"}
HEAD = b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
DRIPS: dict[str, tuple[list[bytes], int]] = {
    "a header without an end": ([HEAD + b"x: ", b"a" * 65536], 8),
    "headers without an end": ([HEAD, b"".join(b"x-%d: 1\r\n" % i for i in range(5000))], 8),
    "a head that drips": ([HEAD, b"x: 1\r\n"], 300),
    "a body that drips": ([HEAD + b"content-length: 100000\r\n\r\n", b"a"], 300),
    "connections that say nothing": ([b""], 600),
}
KINDS = (*BODIES, *DRIPS)


async def be_hostile(url: str, seconds: float, kind: str) -> Counter[Any]:
    """Be the hostile client `kind` for some seconds."""
    until_s = time.monotonic() + seconds
    if kind in BODIES:
        return await post(url, until_s, kind)
    pieces, connections = DRIPS[kind]
    return await raw(url, until_s, pieces, connections)


async def first_token_s(client: httpx.AsyncClient, url: str) -> float:
    """Return the time to the first token of a small streamed request."""
    start_s = time.monotonic()
    body = TEXT | {"stream": True, "ignore_eos": True}
    async with client.stream("POST", f"{url}/completions", json=body) as answer:
        assert answer.status_code == 200, await answer.aread()
        taken_s = 0.0
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and not taken_s:
                taken_s = time.monotonic() - start_s
    return taken_s


async def quiet(url: str, seconds: float) -> list[float]:
    """Return the times to a first token of a client that asks for little, several a second."""
    until_s, found = time.monotonic() + seconds, []
    async with httpx.AsyncClient(timeout=120) as client:
        while time.monotonic() < until_s:
            found.append(await first_token_s(client, url))
            await asyncio.sleep(0.03)
    return found


def p99_ms(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[98] * 1e3


if __name__ == "__main__":
    give_way()  # it stands for another machine, whose processor is not the server's
    print(json.dumps(asyncio.run(be_hostile(sys.argv[1], float(sys.argv[2]), sys.argv[3]))))
