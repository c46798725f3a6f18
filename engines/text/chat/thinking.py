"""A chat's prompt with thinking switched on or off, as its template is told of it."""

from collections.abc import Callable
from functools import partial

from nemotrt.engines.text.chat.render import Chat, Turn, render_chat
from nemotrt.engines.text.chat.template import ChatTemplate
from nemotrt.engines.text.chat.turn import read_turn
from nemotrt.errors import ConfigError

THINKING = "enable_thinking"  # the usual variable; NVIDIA's template has directives instead


class ContradictionError(ConfigError):
    """A message says otherwise than who asked for thinking, or for none; exit code 2."""


def has_switch(template: ChatTemplate) -> bool:
    """Whether a chat can say that the model is to think or not, by a variable or a directive."""
    return THINKING in template.variables or template.mentions(template.chat.directives[False])


def render_thinking(template: ChatTemplate, turns: Chat, thinking: bool | None) -> str:
    """Return the prompt that asks for an answer, with thinking or without; None: as it says.

    A template without the variable has it from a directive at the end of the system message.

    Raises:
        ContradictionError: a message has the last word.
        ConfigError: the template has no switch, or it refuses the messages.
    """
    if thinking is None:
        return render_chat(template, turns)
    if THINKING in template.variables:
        return render_chat(template, turns, None, {THINKING: thinking})
    if not has_switch(template):
        raise ConfigError("the chat template has no switch for thinking.")

    try:
        return render_directed(template, turns, thinking, partial(render_chat, template))
    except ContradictionError as error:
        said = f"{THINKING} is {str(thinking).lower()}"
        raise ContradictionError(f"{said}, but {error.message}") from None


def render_directed(
    template: ChatTemplate, turns: Chat, thinking: bool, render: Callable[[Chat], str]
) -> str:
    """Return the prompt with thinking switched by a directive at the end of the system message.

    Raises:
        ContradictionError: a message has the last word.
        ConfigError: the template refuses the messages.
    """
    words = template.chat.directives
    if not turns or turns[0]["role"] != "system":
        turns = [{"role": "system", "content": ""}, *turns]
    prompt = render([_directed(turns[0], words[thinking]), *turns[1:]])
    if read_turn(prompt, template).expects_trace is not thinking:
        raise ContradictionError(
            f"a message says {words[not thinking]}, or is past its trace; leave one of them out."
        )
    return prompt


def _directed(turn: Turn, directive: str) -> Turn:
    """Return a system message with a directive behind what it says."""
    content = turn.get("content") or ""
    if isinstance(content, list):
        content = [*content, {"type": "text", "text": directive}]
    else:
        content = f"{content} {directive}".lstrip()
    return {**turn, "content": content}
