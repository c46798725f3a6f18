"""A chat's prompt, of which the template has left nothing out.

Templates drop what their author did not think of: a second system message, the parts of a content,
the calls of an assistant. So each text is marked, the marked chat is rendered too, and a mark that
is not in it tells of a loss. Where a chat loses something, or the template refuses it, the next
form of the same chat is tried.

What an assistant thought in past turns is dropped on purpose, and what it said beside its calls is
dropped by many templates; neither is held against them.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from nemotrt.engines.text.chat.template import ChatTemplate
from nemotrt.errors import ConfigError

Turn = Mapping[str, Any]
Chat = Sequence[Turn]
PART_SEPARATOR = "\n"  # as vLLM, llama.cpp and TensorRT-LLM join the parts of a content
SYSTEM_SEPARATOR = "\n\n"


def render_chat(
    template: ChatTemplate,
    turns: Chat,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
    *,
    add_generation_prompt: bool = True,
) -> str:
    """Return the prompt that asks for an answer to `turns`, or that of `turns` alone.

    Raises:
        ConfigError: the template refuses the messages, or leaves out what one of them says.
    """

    def render(form: Chat) -> str:
        return template.render(
            form, tools=tools, add_generation_prompt=add_generation_prompt, variables=variables
        )

    refusals: list[ConfigError] = []
    for form in _forms(turns):
        try:
            prompt = render(form)
        except ConfigError as error:
            refusals.append(error)
            continue
        loss = _loss(form, render)
        if loss is None:
            return prompt
        refusals.append(
            ConfigError(
                f"the chat template leaves out {loss}; put what it says into a message that "
                "the model is shown."
            )
        )
    raise refusals[0]


def render_open(
    template: ChatTemplate,
    turns: Chat,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """Return the prompt with which the model goes on with the last turn's text.

    A mark at that text's end says where the prompt ends; a template that trims the text leaves no
    space before it either. Source: transformers 5.24, utils/chat_template_utils.py.

    Raises:
        ConfigError: as `render_chat`.
    """
    mark = secrets.token_hex(8)
    *others, last = turns
    opened = _with_content(last, lambda content: f"{_text(content)}{mark} ")
    prompt = render_chat(template, [*others, opened], tools, variables, add_generation_prompt=False)
    head, found, rest = prompt.rpartition(mark)
    if not found:
        raise ConfigError("the chat template leaves out the final message.")
    return head if rest.startswith(" ") else head.rstrip()


def _forms(turns: Chat) -> Iterator[Chat]:
    """Yield the forms in which a chat may be given; why the first fails is what is reported.

    Parts are tried as parts first, as transformers gives them, where the template knows them.
    """
    texts = [_with_content(turn, _text) for turn in turns]
    if any(isinstance(turn.get("content"), list) for turn in turns):
        yield turns
    yield texts
    yield [_with_content(turn, _parts) for turn in texts]
    merged = _merged(texts)
    if merged is not None:
        yield merged
        yield [_with_content(turn, _parts) for turn in merged]


def _merged(turns: Chat) -> Chat | None:
    """Return the chat with the system messages at its start as one, None without two of them."""
    count = next((i for i, turn in enumerate(turns) if turn["role"] != "system"), len(turns))
    if count < 2:
        return None
    contents = [turn["content"] for turn in turns[:count] if turn.get("content")]
    return [{"role": "system", "content": SYSTEM_SEPARATOR.join(contents)}, *turns[count:]]


def _with_content(turn: Turn, change: Callable[[Any], Any]) -> Turn:
    content = turn.get("content")
    return turn if content is None else {**turn, "content": change(content)}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return PART_SEPARATOR.join(part["text"] for part in content)


def _parts(content: Any) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


class Marks:
    """Marks for the texts of a chat, none of which is in it by chance."""

    def __init__(self) -> None:
        """Start without marks."""
        self.labels: dict[str, str] = {}  # of what each stands for
        self._nonce = secrets.token_hex(8)

    def text(self, text: str, label: str) -> str:
        """Return a text with a mark at its end."""
        return f"{text} {self._new(label)}" if text.strip() else text

    def part(self, part: Mapping[str, Any], label: str) -> Turn:
        """Return a part marked so that a template which prints Python's list is found out."""
        if not part["text"].strip():
            return part
        mark = self._new(label, "'\"{}\"'")
        return {**part, "text": f"{part['text']} {mark}"}

    def call(self, call: Mapping[str, Any], label: str) -> Turn:
        """Return a tool call with its name and arguments marked."""
        function = call["function"]
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = {**arguments, self._new(f"{label}.function.arguments"): ""}
        name = function["name"] + self._new(f"{label}.function.name")
        return {**call, "function": {**function, "name": name, "arguments": arguments}}

    def _new(self, label: str, form: str = "{}") -> str:
        mark = form.format(f"{self._nonce}x{len(self.labels)}x")
        self.labels[mark] = label
        return mark


def _loss(turns: Chat, render: Callable[[Chat], str]) -> str | None:
    """Return what the template leaves out of a chat, None if nothing.

    A template that refuses marked calls has read their names: then the contents alone are marked.
    """
    for with_calls in (True, False):
        marks = Marks()
        marked = [_marked(turn, f"messages.{i}", marks, with_calls) for i, turn in enumerate(turns)]
        try:
            prompt = render(marked)
        except ConfigError:
            continue
        return next((label for mark, label in marks.labels.items() if mark not in prompt), None)
    return None


def _marked(turn: Turn, label: str, marks: Marks, with_calls: bool) -> Turn:
    """Return a turn with its texts marked."""
    found = dict(turn)
    calls, content = turn.get("tool_calls"), turn.get("content")
    if calls:
        if with_calls:
            found["tool_calls"] = [
                marks.call(call, f"{label}.tool_calls.{i}") for i, call in enumerate(calls)
            ]
        return found
    if isinstance(content, str):
        found["content"] = marks.text(content, f"{label}.content")
    elif content:
        found["content"] = [
            marks.part(part, f"{label}.content.{i}") for i, part in enumerate(content)
        ]
    return found
