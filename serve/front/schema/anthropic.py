"""The body of Anthropic's /v1/messages, as far as this server takes it."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from nemotrt.engines.model.families import ReasoningEffort
from nemotrt.serve.front.schema.messages import ContentOf, Strict, Text, TextPart
from nemotrt.serve.front.schema.neutral import Neutral, Table, none
from nemotrt.serve.front.schema.numbers import number_field, numeric
from nemotrt.serve.front.schema.requests import StopStrings
from nemotrt.serve.front.schema.shared import with_shared
from nemotrt.serve.requests.limits import MAX_MESSAGES, MAX_TOOLS

# That nothing is cleared. Source: Anthropic's API reference, context editing.
KEEPS_ALL: tuple[dict[str, Any], ...] = (
    {"edits": []},
    {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
)
MESSAGES: Table = {
    "service_tier": Neutral(("auto", "standard_only"), "there is one tier"),
    "speed": Neutral(("standard",), "there is one speed"),
    "mcp_servers": Neutral(([],), "no server is asked for tools", "send tools"),
    "betas": none("they are a header"),
    "billing_policy": none("nothing is billed"),
    "compaction": none("nothing is summed up", "send fewer messages"),
    "container": none("nothing is run here"),
    "context_management": Neutral(KEEPS_ALL, "nothing is cleared", "send fewer messages"),
    "diagnostics": none("/metrics and the log have them"),
    "fallback_credit_token": none("there is one model"),
    "fallbacks": none("there is one model"),
    "inference_geo": none("the model runs where the server is"),
    "user_profile_id": none("no profiles are kept", "send metadata.user_id"),
    "workspace_id": none("there are no workspaces"),
    # a chat's
    "stop": none("it has another name here", "send stop_sequences"),
    "max_completion_tokens": none("it has another name here", "send max_tokens"),
    "reasoning_effort": none("it has another name here", "send output_config.effort"),
    "response_format": none("it has another name here", "send output_config.format"),
    "parallel_tool_calls": none(
        "it has another name here", "send tool_choice.disable_parallel_tool_use"
    ),
    "user": none("it has another name here", "send metadata.user_id"),
    "logprobs": none("a message has no scores", "use /v1/chat/completions"),
    "n": Neutral((1,), "a message is one answer", "use /v1/chat/completions"),
}
TOOL: Table = {
    "type": Neutral(("custom",), "every tool is the client's own"),
    "defer_loading": Neutral((False,), "every tool is shown"),
    "eager_input_streaming": Neutral((True, False), "input is streamed as it comes"),
    "allowed_callers": Neutral((["direct"],), "the model alone calls"),
}
BLOCK: Table = {"citations": Neutral(([],), "empty is none")}
CALL: Table = {"caller": Neutral(({"type": "direct"},), "the model alone calls")}
THINKING: Table = {"display": Neutral(("summarized",), "the trace is shown, whole")}


class TextBlock(TextPart):
    """A text."""

    neutral: ClassVar[Table] = BLOCK


class Cached(Strict):
    """A part that may be marked to be cached: a hint, which can't change the answer."""

    cache_control: dict[str, Any] | None = None


class ThinkingBlock(Strict):
    """An earlier trace; whoever signed it, it is taken as text."""

    type: Literal["thinking"]
    thinking: Text
    signature: str | None = None


class ToolUse(Cached):
    """An earlier call of a tool."""

    neutral: ClassVar[Table] = CALL

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ToolResult(Cached):
    """What a tool returned."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: ContentOf[TextBlock] | None = None
    is_error: bool = False


BLOCKS: dict[str, type[Strict]] = {
    "text": TextBlock,
    "thinking": ThinkingBlock,
    "tool_use": ToolUse,
    "tool_result": ToolResult,
}


def _block_kind(block: Any) -> str:
    """Return the tag of a block; what is no block here is told by the text's own check."""
    kind = block.get("type") if isinstance(block, dict) else getattr(block, "type", None)
    return f"({kind})" if isinstance(kind, str) and kind in BLOCKS else "(text)"


Block = Annotated[
    Annotated[TextBlock, Tag("(text)")]
    | Annotated[ThinkingBlock, Tag("(thinking)")]
    | Annotated[ToolUse, Tag("(tool_use)")]
    | Annotated[ToolResult, Tag("(tool_result)")],
    Discriminator(_block_kind),
]


class Turn(Strict):
    """One turn: what the user says and what tools returned, or what the assistant did."""

    role: Literal["user", "assistant"]
    content: ContentOf[Block]

    @model_validator(mode="after")
    def _has_its_sides_blocks(self) -> "Turn":
        wrong = {"user": (ThinkingBlock, ToolUse), "assistant": (ToolResult,)}[self.role]
        for block in self.content if isinstance(self.content, list) else ():
            if isinstance(block, wrong):
                message = f"a turn of the {self.role} has no {block.type} blocks"
                raise PydanticCustomError("side", "{message}", {"message": message})
        return self


class AnthropicTool(Cached):
    """A tool of the client's own; `input_schema` is a JSON schema."""

    neutral: ClassVar[Table] = TOOL

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _say_what_is_not_run_here(cls, tool: Any) -> Any:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if isinstance(kind, str) and kind != "custom":
            message = f"tools of type {kind[:40]!r} are not run here; send your own tools"
            raise PydanticCustomError("no_function", "{message}", {"message": message})
        return tool


class ToolChoice(Strict):
    """Whether tools are to be called, and which."""

    type: Literal["auto", "any", "none", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool = False

    @model_validator(mode="after")
    def _names_a_tool(self) -> "ToolChoice":
        if (self.name is None) is (self.type == "tool"):
            raise PydanticCustomError("tool_choice", "a name goes with type 'tool', and must")
        return self


class Thinking(Strict):
    """Whether to think, and how much."""

    neutral: ClassVar[Table] = THINKING

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = number_field("max_thinking_tokens")


class OutputFormat(Strict):
    """The schema of the answer, kept by masking logits in the engine."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any] = Field(alias="schema")


class OutputConfig(Strict):
    """What the answer is to be."""

    format: OutputFormat | None = None
    effort: ReasoningEffort | None = None


class Metadata(Strict):
    """Who asks."""

    user_id: str | None = None


@with_shared
class CountRequest(Strict):
    """POST /v1/messages/count_tokens; what is not Anthropic's means what it means in a chat."""

    neutral: ClassVar[Table] = MESSAGES

    model: str | None = None  # None: the one that is served
    messages: list[Turn] = Field(min_length=1, max_length=MAX_MESSAGES)
    system: ContentOf[TextBlock] | None = None
    tools: Annotated[list[AnthropicTool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    stop_sequences: StopStrings | None = None
    stream: bool = False
    temperature: float | None = number_field("temperature", most=2)
    metadata: Metadata | None = None
    cache_control: dict[str, Any] | None = None  # a hint, which can't change the answer
    thread: dict[str, Any] | None = Field(default=None, description="Refused: none is kept.")


class MessagesRequest(CountRequest):
    """POST /v1/messages; what is not Anthropic's means what it means in a chat."""

    max_tokens: int = numeric(ge=1, lt=2**31)
