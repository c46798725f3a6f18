"""Reads recorded conversations, a JSON object a line: AIPerf's `multi_turn`, and what it lacks.

Source: AIPerf 0.13.0, aiperf/dataset/loader/multi_turn.py and models.py. Ours are `system` and
`tools`, and of a turn `messages`, `answer` and `input_length`. What AIPerf knows and we don't send
is refused by name.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import pydantic

from nemotrt.errors import ConfigError
from nemotrt.files.model_file import Strict, object_model
from nemotrt.profiles.load.workload import Conversation, TracedSessions, Turn

MS_PER_S = 1e3
MEDIA = tuple(f"{kind}{s}" for kind in ("image", "audio", "video") for s in ("", "s"))
NOT_SENT = {name: "texts alone are sent" for name in (*MEDIA, "image_uuids")}
NOT_SENT["extra"] = "give fields of all requests with --extra"
Milliseconds = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
Message = dict[str, Any]


class _Texts(Strict):
    """A named list of texts."""

    name: str = ""
    contents: list[str]


class _Turn(Strict):
    """A turn; what it adds is `text`, `texts`, `messages` or `input_length`."""

    type: Literal["single_turn"] | None = None
    session_id: str | None = None
    role: Literal["user", "system"] = "user"
    text: str | None = None
    texts: list[str] | list[_Texts] | None = None
    messages: list[Message] | None = pydantic.Field(None, min_length=1)
    input_length: pydantic.PositiveInt | None = None
    output_length: pydantic.PositiveInt | None = None
    answer: str | Message | None = None
    timestamp: Milliseconds | None = None
    delay: Milliseconds | None = None

    def content(self) -> str | list[Message]:
        """Return its text, or its texts as the parts of a message; "" without any."""
        texts = [self.text] if self.text else []
        for item in self.texts or []:
            texts += [item] if isinstance(item, str) else item.contents
        if len(texts) < 2:
            return texts[0] if texts else ""
        return [{"type": "text", "text": text} for text in texts]


class _Line(Strict):
    """One conversation, or more turns of one whose `session_id` came before."""

    type: Literal["multi_turn"] | None = None
    session_id: str | None = None
    system: str | None = None
    tools: tuple[Message, ...] = ()
    turns: list[_Turn] = pydantic.Field(min_length=1)


def read_conversations(
    lines: Iterable[tuple[str, Mapping[str, Any]]], osl: int, speedup: float
) -> TracedSessions:
    """Return the conversations of a file's lines, in order of their times if they have any.

    Args:
        lines: where each is, and its object.
        osl: tokens of answers of which the file does not say how long they are.
        speedup: 2 replays times and pauses twice as fast.

    Raises:
        ConfigError: a line is not of this form, or says what can't be sent.
    """
    found: dict[str, tuple[str, Conversation]] = {}
    for where, raw in lines:
        name, conversation = _conversation(where, raw, osl, MS_PER_S * speedup)
        first, known = found.get(name, (where, None))
        if known is not None:
            if conversation.head or conversation.tools:
                raise ConfigError(f"{where}: session {name!r} began at {first}; say that there.")
            conversation = replace(known, turns=(*known.turns, *conversation.turns))
        found[name] = (first, conversation)
    _check_times(found.values())
    ordered = sorted((c for _, c in found.values()), key=lambda c: c.turns[0].due_s or 0.0)
    return TracedSessions(tuple(_from(ordered[0].turns[0].due_s or 0.0, ordered)))


def _conversation(
    where: str, raw: Mapping[str, Any], osl: int, ms_per_s: float
) -> tuple[str, Conversation]:
    """Return a line's session (its place, where it has no name) and its turns."""
    for turn in turns if isinstance(turns := raw.get("turns"), list) else []:
        for name, why in NOT_SENT.items():
            if isinstance(turn, dict) and turn.get(name):
                raise ConfigError(f"{where}: {name!r} of a turn is not sent: {why}.")
    told = {**raw, "turns": [_told(t) if isinstance(t, dict) else t for t in turns or []]}
    line = object_model(_Line, _told(told), where)
    head: list[Message] = [{"role": "system", "content": line.system}] if line.system else []
    rest = line.turns
    if rest[0].role == "system" and not head:
        head, rest = [_system(where, rest[0])], rest[1:]
    turns = tuple(
        _turn(f"{where}, turn {i}", turn, osl, ms_per_s) for i, turn in enumerate(rest, 1)
    )
    if not turns:
        raise ConfigError(f"{where}: a system prompt alone is no turn.")
    return line.session_id or where, Conversation(turns, tuple(head), line.tools)


def _told(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without its nulls: they say nothing. What is not sent is empty here."""
    return {k: v for k, v in raw.items() if v is not None and k not in NOT_SENT}


def _system(where: str, turn: _Turn) -> Message:
    """Return the system prompt that stands as a first turn."""
    content = turn.content()
    is_plain = (turn.timestamp, turn.delay, turn.output_length) == (None, None, None)
    if not content or not is_plain or turn.messages or turn.input_length or turn.answer:
        raise ConfigError(
            f"{where}: a first turn of role system is the system prompt: it has a text alone."
        )
    return {"role": "system", "content": content}


def _turn(where: str, turn: _Turn, osl: int, ms_per_s: float) -> Turn:
    """Return one turn that is sent."""
    if turn.role != "user":
        raise ConfigError(f"{where}: role {turn.role!r} is for the first turn alone.")
    content, messages = turn.content(), turn.messages or []
    forms = [turn.text, turn.texts, turn.messages, turn.input_length]
    if sum(map(bool, forms)) != 1 or not (content or messages or turn.input_length):
        raise ConfigError(f"{where}: give one of text, texts, messages or input_length.")
    if turn.timestamp and turn.delay:
        raise ConfigError(f"{where}: give timestamp or delay, not both.")
    if any(not isinstance(message.get("role"), str) for message in messages):
        raise ConfigError(f"{where}: each of the messages needs a role.")
    answer = turn.answer
    if isinstance(answer, str):
        answer = {"role": "assistant", "content": answer}
    if answer is not None and answer.get("role") != "assistant":
        raise ConfigError(f"{where}: the answer is a text or a message of role assistant.")
    return Turn(
        turn.output_length or osl,
        tuple(messages or ([{"role": "user", "content": content}] if content else [])),
        turn.input_length or 0,
        answer,
        (turn.delay or 0.0) / ms_per_s,
        None if turn.timestamp is None else turn.timestamp / ms_per_s,
    )


def _check_times(found: Iterable[tuple[str, Conversation]]) -> None:
    """Raise ConfigError where some conversations have a time to start and others have none."""
    timed = {conversation.turns[0].due_s is not None: where for where, conversation in found}
    if len(timed) == 2:
        raise ConfigError(
            f"{timed[False]}: its first turn has no timestamp, that of {timed[True]} has one; "
            "give it to all or to none."
        )


def _from(first_s: float, conversations: Iterable[Conversation]) -> Iterator[Conversation]:
    """Yield the conversations with their times counted from `first_s`."""
    for conversation in conversations:
        yield replace(
            conversation,
            turns=tuple(
                turn if turn.due_s is None else replace(turn, due_s=max(turn.due_s - first_s, 0.0))
                for turn in conversation.turns
            ),
        )
