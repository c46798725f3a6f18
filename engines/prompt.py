"""What the user gives as a prompt, turned into token ids."""

from dataclasses import dataclass

from nemotrt.engines.chat import PLAIN_DEFAULTS, sampling_defaults
from nemotrt.engines.chat_render import render_chat
from nemotrt.engines.opening import OpenEngine
from nemotrt.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Prompt:
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


def prepare(opened: OpenEngine, prompt: Prompt) -> tuple[tuple[int, ...], dict[str, float]]:
    """Return the prompt's ids and the sampling defaults that go with it.

    Raises:
        ConfigError: the ids are malformed, or the engine has no tokenizer or chat template.
    """
    if prompt.ids is not None:
        try:
            return tuple(int(item) for item in prompt.ids.split(",")), PLAIN_DEFAULTS
        except ValueError:
            raise ConfigError(f"--prompt-ids {prompt.ids!r} is not a list like 5,9,12.") from None
    assert prompt.text is not None  # check()
    if opened.tokenizer is None:
        raise ConfigError("the engine has no tokenizer; give --prompt-ids.")
    if not prompt.is_chat:
        return tuple(opened.tokenizer.encode(prompt.text)), PLAIN_DEFAULTS
    if opened.template is None:
        raise ConfigError("the engine has no chat template; leave out --chat.")
    messages = [{"role": "user", "content": prompt.text}]
    if prompt.system is not None:
        messages.insert(0, {"role": "system", "content": prompt.system})
    text = render_chat(opened.template, messages)
    ids = opened.tokenizer.encode(text, add_special_tokens=False)
    return tuple(ids), sampling_defaults(text)
