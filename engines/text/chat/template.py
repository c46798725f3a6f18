"""The checkpoint's Jinja chat template, rendered in a sandbox, and what its result asks for."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemotrt.engines.model.families import family_of, with_settings
from nemotrt.engines.text.tokenizer_config import (
    DEFAULT_TEMPLATE,
    advised_sampling,
    read_tokenizer_config,
    special_tokens,
    template_sources,
)
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.files.text_file import GET_AGAIN

if TYPE_CHECKING:
    from jinja2 import Template

TOOL_TEMPLATE = "tool_use"  # takes the place of the default one where there are tools
REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")  # names of one and the same
Message = Mapping[str, Any]


class ChatTemplate:
    """The compiled chat templates of a checkpoint, rendered as transformers renders them."""

    def __init__(
        self,
        sources: str | Mapping[str, str],
        tokens: Mapping[str, str] | None = None,
        sampling: Mapping[str, float] | None = None,
    ) -> None:
        """Compile the templates that a chat can meet.

        `tokens` are the special tokens by name, `sampling` what the checkpoint advises for it.

        Raises:
            ArtefactError: a template is malformed.
        """
        named = {DEFAULT_TEMPLATE: sources} if isinstance(sources, str) else sources
        self.chat = with_settings(family_of(named.values()), sampling or {})
        self._tokens = dict(tokens or {})
        self._names = sorted(named)
        self._sources = {n: named[n] for n in (DEFAULT_TEMPLATE, TOOL_TEMPLATE) if n in named}
        self._templates = {name: _compiled(name, text) for name, text in self._sources.items()}

    @cached_property
    def variables(self) -> frozenset[str]:
        """The variables that the templates read, the special tokens aside."""
        from jinja2.meta import find_undeclared_variables

        from nemotrt.engines.text.chat.environment import template_environment

        environment = template_environment()
        found: set[str] = set()
        for source in self._sources.values():
            found |= find_undeclared_variables(environment.parse(source))
        return frozenset(found - set(self._tokens))

    def mentions(self, text: str) -> bool:
        """Whether a template has `text` in its source."""
        return any(text in source for source in self._sources.values())

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the prompt text for `messages`, each with a `role`.

        `variables` are what else the template reads. A field that is None counts as not there. A
        template that can't do without a message's `content` gets an empty one.

        Raises:
            ConfigError: there is no message, one lacks its role, or the template refuses them.
        """
        template = self._template(has_tools=tools is not None)
        given = {
            "documents": None,
            **self._tokens,
            **(variables or {}),
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
        }
        turns = _turns(messages)
        forms = [turns]
        if not all("content" in turn for turn in turns):
            forms.append([{"content": "", **turn} for turn in turns])
        faults: list[Exception] = []
        for form in forms:
            try:
                return template.render({**given, "messages": form})
            except Exception as error:  # a template is foreign code: it may raise anything
                faults.append(error)
        raise ConfigError(f"the chat template refuses the messages: {faults[0]}.") from faults[0]

    def _template(self, *, has_tools: bool) -> "Template":
        """Return the template for a chat with or without tools."""
        template = self._templates.get(TOOL_TEMPLATE) if has_tools else None
        template = template or self._templates.get(DEFAULT_TEMPLATE)
        if template is None:
            raise ConfigError(
                f"the checkpoint has no default chat template, only {', '.join(self._names)}."
            )
        return template


def load_chat_template(folder: Path) -> ChatTemplate | None:
    """Return the folder's chat templates, None if it has none.

    Raises:
        ArtefactError: a template or the tokenizer's configuration is malformed.
    """
    config = read_tokenizer_config(folder)
    sources = template_sources(folder, config)
    if not sources:
        return None
    try:
        return ChatTemplate(sources, special_tokens(config), advised_sampling(folder))
    except ArtefactError as error:
        raise ArtefactError(f"{folder}: {error.message}") from error


def _compiled(name: str, source: str) -> "Template":
    """Return a compiled template."""
    from jinja2 import TemplateSyntaxError

    from nemotrt.engines.text.chat.environment import template_environment

    try:
        return template_environment().from_string(source)
    except TemplateSyntaxError as error:
        raise ArtefactError(
            f"the chat template ({name}) is malformed: {error}; {GET_AGAIN}."
        ) from error


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return the messages as templates see them; reasoning has each of its names.

    Source: transformers 5.24, utils/chat_template_utils.py.
    """
    if not messages:
        raise ConfigError("a chat needs at least one message.")
    turns = []
    for message in messages:
        turn = {name: value for name, value in message.items() if value is not None}
        if "role" not in turn:
            raise ConfigError("each chat message needs a role.")
        reasoning = next((turn[name] for name in REASONING_FIELDS if name in turn), None)
        if reasoning is not None:
            turn = {"thinking": reasoning, **turn, "reasoning_content": reasoning}
        turns.append(turn)
    return turns
