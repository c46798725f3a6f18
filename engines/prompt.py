"""What the user gives as a prompt, turned into token ids."""

from collections.abc import Mapping
from dataclasses import dataclass

from nemotrt.engines.opening import OpenEngine
from nemotrt.engines.text.chat.render import render_chat
from nemotrt.engines.text.chat.turn import read_turn
from nemotrt.engines.text.reasoning import Trace
from nemotrt.errors import ConfigError

GREEDY = {"temperature": 0.0}


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
    """A prompt's ids, the sampling defaults that go with it, and where it leaves the trace."""

    ids: tuple[int, ...]
    defaults: Mapping[str, float]
    trace: Trace


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
    if opened.tokenizer is None:
        raise ConfigError("the engine has no tokenizer; give --prompt-ids.")
    if not prompt.is_chat:
        return _prepared(opened, tuple(opened.tokenizer.encode(prompt.text)), is_chat=False)
    if opened.template is None:
        raise ConfigError("the engine has no chat template; leave out --chat.")
    messages = [{"role": "user", "content": prompt.text}]
    if prompt.system is not None:
        messages.insert(0, {"role": "system", "content": prompt.system})
    text = render_chat(opened.template, messages)
    ids = tuple(opened.tokenizer.encode(text, add_special_tokens=False))
    return _prepared(opened, ids, is_chat=True)


def _prepared(opened: OpenEngine, ids: tuple[int, ...], *, is_chat: bool) -> PreparedPrompt:
    """Return the ids with what their text says; the card's settings are for chats."""
    if opened.tokenizer is None:
        return PreparedPrompt(ids, GREEDY, Trace.CLOSED)
    is_known = all(0 <= token < opened.tokenizer.vocab_size for token in ids)
    text = opened.tokenizer.decode(ids, skip_special_tokens=False) if is_known else ""
    turn = read_turn(text, opened.template)
    defaults = turn.chat.sampling[turn.expects_trace] if is_chat else GREEDY
    return PreparedPrompt(ids, defaults, turn.trace)
