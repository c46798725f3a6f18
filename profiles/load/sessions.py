"""Conversations on their way: which turns there are, and the prompt of each.

What a turn's history has as the assistant's is scripted, never the server's own answer. So every
server is sent the same bytes, and two of them can be compared.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from nemotrt.profiles.load.exchange import Exchange, Phase, TurnPlace
from nemotrt.profiles.load.prompts import Chat, Prompt, PromptMaker
from nemotrt.profiles.load.target import Target
from nemotrt.profiles.load.workload import (
    Conversation,
    MadeSessions,
    TracedSessions,
    Turn,
    Workload,
)

Message = Mapping[str, Any]
Visit = tuple[tuple[Turn, Exchange], ...]  # one conversation
TOOLS = ("search", "read_file", "run_command", "write_file")
QUERY_TOKENS = 8  # of the made call of a tool
# What the shared block is made of: the rest is tools.
SYSTEM_SHARE = 0.5


def visits(workload: Workload) -> Iterator[Visit]:
    """Yield conversations: warm-up, measured, then cool-down, which a trace has not; if any."""
    if workload.sessions is None:
        return
    index = 0
    for number in itertools.count():
        turns = _turns(workload, number)
        if not turns:
            return
        phase = _phase(workload, index)
        exchanges = [
            Exchange(index + i, phase, 0, turn.osl, place=TurnPlace(number, i + 1, len(turns)))
            for i, turn in enumerate(turns)
        ]
        yield tuple(zip(turns, exchanges, strict=True))
        index += len(turns)


def _turns(workload: Workload, number: int) -> tuple[Turn, ...]:
    """Return the turns of a conversation, () after a trace's last."""
    sessions = workload.sessions
    if isinstance(sessions, TracedSessions):
        traced = sessions.conversations[number : number + 1]
        return traced[0].turns if traced else ()
    assert isinstance(sessions, MadeSessions)  # the caller looked
    first = Turn(workload.osl, num_tokens=workload.isl)
    later = replace(first, delay_s=sessions.think_s)
    return (first, *(later,) * (sessions.num_turns - 1))


def _phase(workload: Workload, index: int) -> Phase:
    """Return what a conversation is for whose first request is `index`."""
    if index < workload.num_warmup:
        return Phase.WARM_UP
    is_measured = index < workload.num_warmup + workload.num_requests
    return Phase.MEASURED if is_measured else Phase.COOL_DOWN


class Chats:
    """Makes the prompts of a workload's conversations in the form that a target takes."""

    def __init__(self, target: Target, workload: Workload) -> None:
        """Make the texts by the target's tokenizer."""
        self._target, self._workload = target, workload
        self._shared: Conversation | None = None

    def prompts(self, number: int) -> list[Prompt]:
        """Return the prompt of each turn of conversation `number`.

        Raises:
            ConfigError: the target takes no conversations, or can't make a text.
        """
        maker = self._target.maker
        if maker is None:
            return [self._target.chat_prompt(Chat((), (), 0))]  # it says why not
        found = self._filled(number, maker)
        history, prompts = list(found.head), []
        for turn, count in zip(found.turns, _counts(found, maker), strict=True):
            history += turn.messages
            chat = Chat(tuple(history), found.tools, count)
            prompts.append(self._target.chat_prompt(chat))
            assert turn.answer is not None  # `_filled` saw to it
            history.append(turn.answer)
        return prompts

    def _filled(self, number: int, maker: PromptMaker) -> Conversation:
        """Return a conversation in which every text is there."""
        sessions = self._workload.sessions
        if isinstance(sessions, TracedSessions):
            found = sessions.conversations[number]
            filled = (_filled(turn, f"{number}:{i}", maker) for i, turn in enumerate(found.turns))
            return replace(found, turns=tuple(filled))
        assert sessions is not None  # the caller looked
        self._shared = self._shared or _shared_block(sessions.system_tokens, maker)
        turns = _turns(self._workload, number)
        made = (_agent_turn(turn, number, place, maker) for place, turn in enumerate(turns))
        return replace(self._shared, turns=tuple(made))


def _filled(turn: Turn, name: str, maker: PromptMaker) -> Turn:
    """Return a recorded turn with texts where only lengths were recorded."""
    messages, answer = turn.messages, turn.answer
    if not messages:
        messages = ({"role": "user", "content": maker.text(f"{name}:new", turn.num_tokens).text},)
    if answer is None:
        text = maker.text(f"{name}:answer", turn.osl).text
        answer = {"role": "assistant", "content": text}
    return replace(turn, messages=messages, answer=answer)


def _agent_turn(turn: Turn, number: int, place: int, maker: PromptMaker) -> Turn:
    """Return an agent's turn: the task, or what a tool said, and the next call as the answer."""

    def text(name: str, count: int) -> str:
        return maker.text(f"{number}:{place}:{name}", count).text

    new: dict[str, Any] = {"role": "user", "content": text("new", turn.num_tokens)}
    if place:
        new |= {"role": "tool", "tool_call_id": f"call_{place - 1}"}
    arguments = json.dumps({"query": text("query", QUERY_TOKENS)}, ensure_ascii=False)
    function = {"name": TOOLS[place % len(TOOLS)], "arguments": arguments}
    call = {"id": f"call_{place}", "type": "function", "function": function}
    answer = {
        "role": "assistant",
        "content": text("answer", turn.osl),
        "tool_calls": [call],
    }
    return replace(turn, messages=(new,), answer=answer)


def _shared_block(num_tokens: int, maker: PromptMaker) -> Conversation:
    """Return the system prompt and the tools that all agents share, without turns."""
    if not num_tokens:
        return Conversation(())
    rest = max(num_tokens - _count(maker, *(_tool(name, "") for name in TOOLS)), 0)
    system = max(round(SYSTEM_SHARE * rest), 1)
    each = max((rest - system) // len(TOOLS), 1)
    tools = (_tool(name, maker.text(f"shared:{name}", each).text) for name in TOOLS)
    head = {"role": "system", "content": maker.text("shared:system", system).text}
    return Conversation((), (head,), tuple(tools))


def _tool(name: str, description: str) -> Message:
    """Return a tool of one argument."""
    query = {"type": "string", "description": "What it is asked for."}
    parameters = {"type": "object", "properties": {"query": query}, "required": ["query"]}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


def _counts(conversation: Conversation, maker: PromptMaker) -> list[int]:
    """Return the tokens of the texts up to each turn."""

    def spoken(*messages: Message | None) -> int:
        told = (message for message in messages if message)
        return _count(
            maker, *(part for m in told for part in (m.get("content"), m.get("tool_calls")))
        )

    total = _count(maker, *conversation.tools) + spoken(*conversation.head)
    found = []
    for turn in conversation.turns:
        total += spoken(*turn.messages)
        found.append(total)
        total += spoken(turn.answer)
    return found


def _count(maker: PromptMaker, *parts: Any) -> int:
    """Return the tokens of texts, and of what is no text as JSON."""
    texts = [p if isinstance(p, str) else json.dumps(p, ensure_ascii=False) for p in parts if p]
    encode = maker.tokenizer.encode
    return sum(len(encode(text, add_special_tokens=False)) for text in texts)
