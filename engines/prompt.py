"""What the user gives as a prompt, turned into token ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from nemotrt.engines.opening import OpenEngine
from nemotrt.engines.runtime.sampling.thinking_budget import ThinkingBudget
from nemotrt.engines.text.chat.template import Message
from nemotrt.engines.text.chat.thinking import render_thinking
from nemotrt.engines.text.chat.turn import Turn, read_turn
from nemotrt.engines.text.reasoning import Trace
from nemotrt.errors import ConfigError

GREEDY = {"temperature": 0.0}
NO_TURN = Turn(Trace.CLOSED, expects_trace=False, is_at_newline=False)


@dataclass(frozen=True, slots=True)
class GivenPrompt:
    """A text, or ids as "5,9,12"; `is_chat` makes the text a user's turn."""

    text: str | None
    ids: str | None = None
    is_chat: bool = False
    system: str | None = None

    def check(self) -> None:
        """Raise ConfigError unless there is exactly one prompt, used consistently."""
        if (self.text is None) == (self.ids is None):
            raise ConfigError("give a PROMPT or --prompt-ids, one of them.")
        if self.is_chat and self.text is None:
            raise ConfigError("--chat needs a PROMPT, not --prompt-ids.")
        if self.system is not None and not self.is_chat:
            raise ConfigError("--system goes with --chat.")


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """A prompt's ids, the sampling defaults that go with it, and where it leaves the turn."""

    ids: tuple[int, ...]
    defaults: Mapping[str, float]
    turn: Turn

    @property
    def trace(self) -> Trace:
        """Where it leaves the reasoning trace."""
        return self.turn.trace


def prepare(opened: OpenEngine, prompt: GivenPrompt) -> PreparedPrompt:
    """Return what the scheduler needs of a prompt.

    Raises:
        ConfigError: the ids are malformed, or the engine has no tokenizer or chat template.
    """
    if prompt.ids is not None:
        try:
            ids = tuple(int(item) for item in prompt.ids.split(","))
        except ValueError:
            raise ConfigError(f"--prompt-ids {prompt.ids!r} is not a list like 5,9,12.") from None
        return _prepared(opened, ids, is_chat=False)
    assert prompt.text is not None  # check()
    if not prompt.is_chat:
        return prepare_text(opened, prompt.text)
    messages = [{"role": "user", "content": prompt.text}]
    if prompt.system is not None:
        messages.insert(0, {"role": "system", "content": prompt.system})
    return prepare_chat(opened, messages)


def prepare_text(opened: OpenEngine, text: str) -> PreparedPrompt:
    """Return what the scheduler needs to go on with a text.

    Raises:
        ConfigError: the engine has no tokenizer.
    """
    if opened.tokenizer is None:
        raise ConfigError("the engine has no tokenizer; give --prompt-ids.")
    return _prepared(opened, tuple(opened.tokenizer.encode(text)), is_chat=False)


def prepare_chat(
    opened: OpenEngine, messages: Sequence[Message], *, thinking: bool | None = None
) -> PreparedPrompt:
    """Return what the scheduler needs to answer messages; `thinking` None leaves it to them.

    Raises:
        ConfigError: the engine has no tokenizer or chat template, or the template refuses them.
    """
    if opened.tokenizer is None:
        raise ConfigError("the engine has no tokenizer; give --prompt-ids.")
    if opened.template is None:
        raise ConfigError("the engine has no chat template; leave out --chat.")
    text = render_thinking(opened.template, messages, thinking)
    ids = tuple(opened.tokenizer.encode(text, add_special_tokens=False))
    return _prepared(opened, ids, is_chat=True)


def thinking_budget(
    opened: OpenEngine, prompt: PreparedPrompt, max_thinking_tokens: int
) -> ThinkingBudget | None:
    """Return what ends the reasoning behind a prompt in time; None where none can come."""
    turn = prompt.turn
    if opened.tokenizer is None or turn.trace not in (Trace.BEFORE, Trace.OPEN):
        return None
    encode = partial(opened.tokenizer.encode, add_special_tokens=False)
    return ThinkingBudget(
        turn.chat, max_thinking_tokens, encode, turn.trace, is_at_newline=turn.is_at_newline
    )


def _prepared(opened: OpenEngine, ids: tuple[int, ...], *, is_chat: bool) -> PreparedPrompt:
    """Return the ids with what their text says; the card's settings are for chats."""
    if opened.tokenizer is None:
        return PreparedPrompt(ids, GREEDY, NO_TURN)
    is_known = all(0 <= token < opened.tokenizer.vocab_size for token in ids)
    text = opened.tokenizer.decode(ids, skip_special_tokens=False) if is_known else ""
    turn = read_turn(text, opened.template)
    defaults = turn.chat.sampling[turn.expects_trace] if is_chat else GREEDY
    return PreparedPrompt(ids, defaults, turn)
