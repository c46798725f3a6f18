"""Agents that take turns on a server, one request at a time: first tokens, and what was cached."""

import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Engine, Feed
from nemotrt.engines.text.chat.render import render_chat
from nemotrt.engines.text.chat.template import load_chat_template
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.profiles.load.exchange import Exchange, Phase
from nemotrt.profiles.load.prompts import Chat, Prompt
from nemotrt.profiles.load.sessions import Chats
from nemotrt.profiles.load.target import Target
from nemotrt.profiles.load.targets.opening import open_target
from nemotrt.profiles.load.targets.options import ServerProtocol, TargetOptions
from nemotrt.profiles.load.workload import Language, MadeSessions, Workload

PROBE_OSL = 2  # tokens of an answer where the first one's time alone is wanted
MARGIN_TOKENS = 1024  # of a sequence's length, for the chat template and the last answer


@dataclass(frozen=True, slots=True)
class Size:
    """How large the load is; a turn adds `isl` tokens and an answer of `osl`."""

    model: str
    agents: int
    turns: int
    isl: int
    osl: int
    system_tokens: int
    at_once: int
    history: int
    short: int
    num_threads: int
    cache_gib: float

    @property
    def load(self) -> Workload:
        """The agents that are at work at once; each has one conversation."""
        sessions = MadeSessions(self.turns, self.system_tokens, 0.0)
        count = self.at_once * self.turns
        return Workload(
            self.isl,
            self.osl,
            count,
            concurrency=self.at_once,
            num_warmup=0,
            language=Language.ENGLISH,
            seed=1,
            sessions=sessions,
        )

    @property
    def max_seq_len(self) -> int:
        """What a conversation needs; texts of a call are about as long as a hundred tokens."""
        grown = self.system_tokens + self.turns * (self.isl + self.osl + 100)
        return -(-(grown + self.short + MARGIN_TOKENS) // 256) * 256

    @property
    def history_turn(self) -> int:
        """The turn whose prompt is about as long as `history`."""
        wanted = (self.history - self.system_tokens) / (self.isl + self.osl)
        return min(max(round(wanted), 2), self.turns)


@dataclass(frozen=True, slots=True)
class Row:
    """One request that was sent alone; `alone_ms` is of as many new tokens in an empty sequence."""

    agent: int
    turn: int
    isl: int
    new_tokens: int
    cached_tokens: int | None
    cachable_tokens: int
    ttft_ms: float
    alone_ms: float


@dataclass(frozen=True, slots=True)
class Short:
    """A short turn behind the history: the assistant has called a tool, which says little."""

    isl: int
    new_tokens: int
    ttft_ms: float


def in_place_ms(folder: Path, num_threads: int, rows: list[Row]) -> list[float]:
    """Return the bare engine's time for each turn's new tokens, with the history in place.

    It grows with the history, for the new tokens attend to it; a server adds to it what it costs to
    find and restore a state, and to read a request. The better of two rounds counts: the first is
    the first to touch the caches' memory.
    """
    engine = open_engine(folder, OpenOptions(num_threads), verify=False).engine
    counts = [row.new_tokens for row in rows if row.agent == 0]
    rounds = [_in_place_round(engine, counts) for _ in range(2)]
    engine.close()
    return [min(times) for times in zip(*rounds, strict=True)]


def _in_place_round(engine: Engine, counts: list[int]) -> list[float]:
    """Return the time of so many tokens, behind all before them."""
    chunk, random = engine.limits.chunk_tokens, np.random.default_rng(0)
    slot, found = engine.allocate(), []
    for new in counts:
        start_s = time.perf_counter()
        for first in range(0, new, chunk):
            tokens = random.integers(3, engine.vocab_size, min(chunk, new - first)).tolist()
            engine.step([Feed(slot, tokens)])
        found.append(1e3 * (time.perf_counter() - start_s))
    engine.release(slot)
    return found


def target_of(url: str, size: Size, checkpoint: Path) -> Target:
    """Return the chat endpoint of a server."""
    options = TargetOptions(
        ServerProtocol.OPENAI_CHAT, tokenizer=str(checkpoint), stall_timeout_s=3600.0
    )
    return open_target(url, size.load, options)


async def send(target: Target, prompt: Prompt, index: int) -> Exchange:
    """Send one prompt for a short answer."""
    exchange = Exchange(index, Phase.MEASURED, prompt.num_tokens, PROBE_OSL)
    await target.send(prompt, exchange)
    return exchange


def ttft_ms(exchange: Exchange) -> float:
    """Return the time to the first token."""
    assert exchange.sent_s is not None
    return 1e3 * (exchange.arrivals_s[0] - exchange.sent_s)


async def take_turns(url: str, size: Size, checkpoint: Path) -> list[Row]:
    """Return every agent's turns, in turn, one request at a time; after the first, a probe."""
    target = target_of(url, size, checkpoint)
    chats = Chats(target, size.load)
    prompts = [chats.prompts(agent) for agent in range(size.agents)]
    cachable = cachable_tokens(prompts, checkpoint)
    rows: list[Row] = []
    held = [0] * size.agents
    await target.open()
    for turn in range(size.turns):
        alone_ms_per_token = 0.0
        for agent in range(size.agents):
            done = await send(target, prompts[agent][turn], len(rows))
            new = done.isl - held[agent]
            if agent == 0:
                probe = await send(target, alone(target, turn, new), len(rows))
                alone_ms_per_token = ttft_ms(probe) / probe.isl
            held[agent] = done.isl
            shared = cachable[agent][turn]
            times = ttft_ms(done), alone_ms_per_token * new
            rows.append(Row(agent, turn + 1, done.isl, new, done.cached_tokens, shared, *times))
            click.echo(f"  turn {turn + 1}, agent {agent}: {rows[-1]}", err=True)
    await target.close()
    return rows


async def take_short_turns(url: str, size: Size, checkpoint: Path, rows: list[Row]) -> list[Short]:
    """Return a short turn of each agent, on the server that has just had all their turns."""
    target = target_of(url, size, checkpoint)
    chats, found = Chats(target, size.load), []
    before = {row.agent: row.isl for row in rows if row.turn == size.history_turn}
    await target.open()
    for agent in range(size.agents):
        done = await send(target, short_prompt(target, chats, agent, size), agent)
        found.append(Short(done.isl, done.isl - before[agent], ttft_ms(done)))
        click.echo(f"  short turn, agent {agent}: {found[-1]}", err=True)
    await target.close()
    return found


def short_prompt(target: Target, chats: Chats, agent: int, size: Size) -> Prompt:
    """Return what follows the history where the assistant says nothing but a tool's name."""
    assert target.maker is not None
    prompt = chats.prompts(agent)[size.history_turn - 1]
    assert prompt.chat is not None
    text = target.maker.text(f"short:{agent}", size.short).text
    function = {"name": "search", "arguments": "{}"}
    call = {"id": "call_short", "type": "function", "function": function}
    messages = (
        *prompt.chat.messages,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_short", "content": text},
    )
    count = prompt.chat.num_tokens + size.short
    return target.chat_prompt(Chat(messages, prompt.chat.tools, count))


def alone(target: Target, turn: int, num_tokens: int) -> Prompt:
    """Return a prompt of about that many tokens that no server has seen."""
    assert target.maker is not None
    text = target.maker.text(f"alone:{turn}:{num_tokens}", num_tokens).text
    return Prompt((), chat=Chat(({"role": "user", "content": text},), (), num_tokens))


def cachable_tokens(prompts: list[list[Prompt]], checkpoint: Path) -> list[list[int]]:
    """Return what each prompt has in common with one before it, by agent and turn."""
    template, tokenizer = load_chat_template(checkpoint), load_tokenizer(checkpoint)
    assert template is not None and tokenizer is not None

    def ids(prompt: Prompt) -> list[int]:
        assert prompt.chat is not None
        text = render_chat(template, prompt.chat.messages, prompt.chat.tools)
        return tokenizer.encode(text, add_special_tokens=False)

    all_ids = [[ids(prompt) for prompt in turns] for turns in prompts]
    found = []
    for agent, turns in enumerate(all_ids):
        before = [all_ids[0][0], *turns[:-1]] if agent else [[], *turns[:-1]]
        found.append([common(one, other) for one, other in zip(turns, before, strict=True)])
    return found


def common(one: list[int], other: list[int]) -> int:
    """Return how many tokens two prompts have in common at their starts, the last one left out."""
    pairs = enumerate(zip(one[:-1], other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one) - 1, len(other)))


async def without_cache(url: str, size: Size, checkpoint: Path) -> tuple[float, float]:
    """Return the time to the first token of agent 0's turn at the history, and of its short one.

    The server keeps nothing.
    """
    target = target_of(url, size, checkpoint)
    chats = Chats(target, size.load)
    prompts = chats.prompts(0)[size.history_turn - 1], short_prompt(target, chats, 0, size)
    await target.open()
    first, short = [
        min([ttft_ms(await send(target, prompt, i)) for i in range(2)]) for prompt in prompts
    ]
    await target.close()
    return first, short
