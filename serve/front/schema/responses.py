"""The body of OpenAI's /v1/responses, as far as this server takes it."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from nemotrt.engines.model.families import ReasoningEffort
from nemotrt.serve.front.schema.messages import (
    ContentOf,
    Strict,
    Text,
    TextPart,
    no_other_tool,
)
from nemotrt.serve.front.schema.neutral import Neutral, Table, none
from nemotrt.serve.front.schema.numbers import number_field, numeric
from nemotrt.serve.front.schema.requests import Function
from nemotrt.serve.front.schema.shared import with_shared
from nemotrt.serve.front.schema.tool_choice import FunctionChoice
from nemotrt.serve.requests.limits import MAX_MESSAGES, MAX_TOOLS

LOGPROBS = "message.output_text.logprobs"
RESPONSES: Table = {
    "background": Neutral((False,), "the answer is given at once"),
    "prompt_cache_retention": Neutral(("in_memory",), "prefixes are kept in memory alone"),
    "service_tier": Neutral(("auto", "default"), "there is one tier"),
    "truncation": Neutral(("disabled",), "nothing is cut"),
    "access_programs": none("there are no programs"),
    "background_options": none("the answer is given at once"),
    "context_management": none("nothing is cut or summed up", "send a shorter input"),
    "conversation": none("no conversation is kept by name", "send previous_response_id"),
    "image": none("answers are text"),
    "max_tool_calls": none("no tool is run here"),
    "moderation": none("nothing is moderated"),
    "prompt": none("no prompts are kept", "send instructions and input"),
    "prompt_cache_options": none("prefixes are kept as the server's options say"),
    # a chat's
    "messages": none("it has another name here", "send input"),
    "max_tokens": none("it has another name here", "send max_output_tokens"),
    "max_completion_tokens": none("it has another name here", "send max_output_tokens"),
    "response_format": none("it has another name here", "send text.format"),
    "reasoning_effort": none("it has another name here", "send reasoning.effort"),
    "logprobs": none("it has another name here", f'send include: ["{LOGPROBS}"]'),
    "stop": none("a response has no stop strings", "use /v1/chat/completions"),
    "n": Neutral((1,), "a response is one answer", "use /v1/chat/completions"),
}
PART: Table = {"annotations": Neutral(([],), "empty is none")}
REASONING: Table = {"encrypted_content": Neutral(("",), "empty is none")}
TEXT: Table = {"verbosity": Neutral(("medium",), "the default")}
EFFORT: Table = {
    "summary": Neutral(("auto",), "the trace itself is in the reasoning item"),
    "generate_summary": Neutral(("auto",), "the trace itself is in the reasoning item"),
}


class InputPart(TextPart):
    """A piece of a message, as it was sent or answered."""

    kinds: ClassVar[tuple[str, ...]] = ("input_text", "output_text")
    neutral: ClassVar[Table] = PART

    type: Literal["input_text", "output_text"]  # type: ignore[assignment]
    logprobs: list[Any] | None = None  # of an answer; the model is not shown them


class ReasoningPart(TextPart):
    """A piece of a trace, or of its summary."""

    kinds: ClassVar[tuple[str, ...]] = ("reasoning_text", "summary_text", "text")

    type: Literal["reasoning_text", "summary_text", "text"]  # type: ignore[assignment]


class Item(Strict):
    """What every item may say of itself; none of it changes an answer."""

    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class MessageItem(Item):
    """A message of any side."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: ContentOf[InputPart]
    phase: str | None = None


class ReasoningItem(Item):
    """An earlier trace; what a summary says counts where there is no trace."""

    neutral: ClassVar[Table] = REASONING

    type: Literal["reasoning"]
    summary: list[ReasoningPart] = Field(default=[])
    content: list[ReasoningPart] | None = None


class CallItem(Item):
    """An earlier call of a function; its arguments are JSON in a text."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class CallOutputItem(Item):
    """What a function returned."""

    type: Literal["function_call_output"]
    call_id: str
    output: ContentOf[InputPart]


def _item_kind(item: Any) -> str | None:
    """Return the tag of an item; a message need not say that it is one."""
    told = item if isinstance(item, dict) else vars(item) if isinstance(item, Item) else {}
    kind = told.get("type") or ("message" if "role" in told else None)
    return f"({kind})" if isinstance(kind, str) and f"({kind})" in ITEMS else None


ITEMS = ("(message)", "(reasoning)", "(function_call)", "(function_call_output)")
InputItem = Annotated[
    Annotated[MessageItem, Tag("(message)")]
    | Annotated[ReasoningItem, Tag("(reasoning)")]
    | Annotated[CallItem, Tag("(function_call)")]
    | Annotated[CallOutputItem, Tag("(function_call_output)")],
    Discriminator(
        _item_kind,
        custom_error_type="item",
        custom_error_message="Input should be a message, reasoning, function_call or "
        "function_call_output item; others are not supported",
    ),
]


class FunctionTool(Function):
    """A tool; only functions are taken."""

    type: Literal["function"]

    _say_what_is_no_function = model_validator(mode="before")(no_other_tool)


class TextForm(Strict):
    """The form of the answer's text, kept by masking logits in the engine."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class TextOptions(Strict):
    """What the answer's text is to be."""

    neutral: ClassVar[Table] = TEXT

    format: TextForm | None = None


class Padding(Strict):
    """Whether the pieces of a stream are padded, so that their sizes don't tell what they say."""

    include_obfuscation: bool = False


class Reasoning(Strict):
    """How much to think."""

    neutral: ClassVar[Table] = EFFORT

    effort: ReasoningEffort | None = None


def _input_kind(value: Any) -> str | None:
    if isinstance(value, str):
        return "(text)"
    return "(items)" if isinstance(value, list) else None


@with_shared
class ResponsesRequest(Strict):
    """POST /v1/responses; what is not OpenAI's means what it means in a chat."""

    neutral: ClassVar[Table] = RESPONSES

    model: str | None = None  # None: the one that is served
    input: Annotated[
        Annotated[Text, Tag("(text)")]
        | Annotated[list[InputItem], Tag("(items)"), Field(min_length=1, max_length=MAX_MESSAGES)],
        Discriminator(
            _input_kind,
            custom_error_type="input",
            custom_error_message="Input should be a text or a list of items",
        ),
    ]
    instructions: Text | None = None
    previous_response_id: str | None = Field(default=None, max_length=128)
    store: bool | None = None
    stream: bool = False
    stream_options: Padding | None = None
    max_output_tokens: int | None = number_field("max_tokens", least=1)
    temperature: float | None = number_field("temperature", most=2)
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    # Reasoning items hold the trace as it is: there is nothing to encrypt.
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = (
        None
    )
    top_logprobs: int | None = numeric(default=None, ge=0, le=20)
    user: str | None = None  # this and the next three can't change an answer
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @property
    def is_scored(self) -> bool:
        """Whether the answer's text is to come with its log-probabilities."""
        return LOGPROBS in (self.include or ())

    @property
    def items(self) -> list[Any]:
        """The input as items; a text is the user's message."""
        if isinstance(self.input, str):
            return [MessageItem(role="user", content=self.input)]
        return self.input
