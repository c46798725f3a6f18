"""The checkpoint's Jinja chat template, rendered in a sandbox, and what its result asks for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from nemotrt.errors import ArtefactError, ConfigError

# Model card of NVIDIA-Nemotron-Nano-9B-v2: "temperature 0.6, top_p 0.95 for reasoning True and
# greedy search for reasoning False".
REASONING_DEFAULTS: dict[str, float] = {"temperature": 0.6, "top_p": 0.95}
PLAIN_DEFAULTS: dict[str, float] = {"temperature": 0.0, "top_p": 1.0}
Message = Mapping[str, Any]


class ChatTemplate:
    """A compiled chat template."""

    def __init__(self, source: str) -> None:
        """Compile the template; the sandbox forbids attribute tricks and state changes."""
        from jinja2 import TemplateSyntaxError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        try:
            self._template = environment.from_string(source)
            self._source = source
        except TemplateSyntaxError as error:
            raise ArtefactError(f"the chat template is malformed: {error}.") from error

    def mentions(self, text: str) -> bool:
        """Whether the template has `text` in its source."""
        return text in self._source

    def render(
        self, messages: Sequence[Message], *, add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """Return the prompt text for `messages`, each with `role` and `content`.

        Raises:
            ConfigError: there is no message, one lacks a field, or the template refuses them.
        """
        if not messages:
            raise ConfigError("a chat needs at least one message.")
        for message in messages:
            if "role" not in message:
                raise ConfigError("each chat message needs a role.")
        copies = [{**message, "content": message.get("content") or ""} for message in messages]
        try:
            return self._template.render(
                messages=copies, add_generation_prompt=add_generation_prompt, **variables
            )
        except ConfigError:
            raise
        except Exception as error:  # a template is foreign code: it may raise anything
            raise ConfigError(f"the chat template refuses the messages: {error}.") from error


def load_chat_template(folder: Path) -> ChatTemplate | None:
    """Return the folder's template: chat_template.jinja, or the one in tokenizer_config.json."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return ChatTemplate(path.read_text(encoding="utf-8"))
    config = folder / "tokenizer_config.json"
    if config.is_file():
        source = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
        if isinstance(source, str):
            return ChatTemplate(source)
    return None


def sampling_defaults(*, reasons: bool) -> dict[str, float]:
    """Return the model card's sampling settings for an answer with reasoning or without."""
    return dict(REASONING_DEFAULTS if reasons else PLAIN_DEFAULTS)


def _to_json(value: Any, indent: int | None = None) -> str:
    """Serialize for a template: no HTML escapes, non-ASCII text kept (as transformers does)."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    """Let a template refuse its input."""
    raise ConfigError(f"the chat template refuses the messages: {message}")
