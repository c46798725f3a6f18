"""Where a prompt leaves the assistant's turn, told by its text and the chat template."""

import re
from dataclasses import dataclass
from functools import lru_cache

from nemotrt.engines.model.families import DEFAULT, ChatFormat
from nemotrt.engines.text.chat.template import ChatTemplate
from nemotrt.engines.text.reasoning import Trace, trace_of
from nemotrt.errors import ConfigError

PROBE = "What is the time?"


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model goes on with.

    `expects_trace`: the trace is open, or the template knows traces and leaves it to the model to
    open one. `is_at_newline`: an open trace may end at once.
    """

    trace: Trace
    expects_trace: bool
    is_at_newline: bool
    chat: ChatFormat = DEFAULT


def read_turn(prompt: str, template: ChatTemplate | None) -> Turn:
    """Return where `prompt` leaves the assistant's turn."""
    chat = DEFAULT if template is None else template.chat
    header = "" if template is None else turn_header(template)
    trace = trace_of(chat, prompt, header)
    is_chat = bool(header) and prompt.rstrip().endswith(header)
    leaves_it_open = is_chat and template is not None and any(map(template.mentions, chat.think))
    return Turn(
        trace,
        trace is Trace.OPEN or (trace is Trace.BEFORE and leaves_it_open),
        prompt.endswith(("\n", chat.think.open)),
        chat,
    )


@lru_cache(maxsize=8)
def turn_header(template: ChatTemplate) -> str:
    """Return the text with which `template` opens the assistant's turn, "" if it has none."""
    opening = _opening(template, PROBE)
    return re.split("|".join(map(re.escape, template.chat.think)), opening)[0].strip()


def turn_openings(template: ChatTemplate) -> tuple[str, ...]:
    """Return all that `template` writes behind the last message, with thinking and without."""
    return tuple(
        _opening(template, f"{PROBE} {directive}")
        for directive in template.chat.directives.values()
    )


def _opening(template: ChatTemplate, text: str) -> str:
    """Return what `template` writes behind a question, "" if it takes none."""
    question = [{"role": "user", "content": text}]
    try:
        asked = template.render(question)
        told = template.render(question, add_generation_prompt=False)
    except ConfigError:
        return ""
    is_longer = asked.startswith(told) and asked != told
    return asked[len(told) :] if is_longer else asked.rpartition(PROBE)[2]
