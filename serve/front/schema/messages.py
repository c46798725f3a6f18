"""The messages of a chat's body, and what every part of a body has in common."""

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Tag,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError

from nemotrt.serve.front.schema.neutral import MESSAGE, Table, describe, without_neutral

Text = Annotated[str, Field(max_length=1 << 24)]


class Strict(BaseModel):
    """Refuses unknown fields; a null is a field that is not given."""

    model_config = ConfigDict(extra="forbid")
    neutral: ClassVar[Table] = {}

    @model_validator(mode="before")
    @classmethod
    def _leave_out_neutral(cls, body: Any) -> Any:
        return without_neutral(body, cls.neutral) if isinstance(body, dict) else body

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the schema, with the neutral values."""
        schema = handler(core_schema)
        describe(handler.resolve_ref_schema(schema), cls.neutral)
        return schema


class TextPart(Strict):
    """A piece of a message; only text is taken."""

    kinds: ClassVar[tuple[str, ...]] = ("text",)

    type: Literal["text"]
    text: Text
    cache_control: dict[str, Any] | None = None  # a hint, which can't change the answer

    @model_validator(mode="before")
    @classmethod
    def _say_what_is_no_text(cls, part: Any) -> Any:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind not in cls.kinds:
            name = MEDIA.get(kind, f"parts of type {kind!r}")
            raise PydanticCustomError("not_text", f"{name} are not supported; send text")
        return part


MEDIA = {
    **dict.fromkeys(("image_url", "image", "input_image"), "images"),
    **dict.fromkeys(("input_audio", "audio_url", "audio"), "audio clips"),
    **dict.fromkeys(("video_url", "video"), "videos"),
    **dict.fromkeys(("file", "input_file", "document"), "files"),
}
Part = TypeVar("Part")


def _content_kind(content: Any) -> str | None:
    """Return the tag of a message's content; tags in brackets stay out of error messages."""
    if isinstance(content, str):
        return "(text)"
    return "(parts)" if isinstance(content, list) else None


ContentOf = Annotated[
    Annotated[Text, Tag("(text)")] | Annotated[list[Part], Tag("(parts)")],
    Discriminator(
        _content_kind,
        custom_error_type="content",
        custom_error_message="Input should be a text or a list of text parts",
    ),
]
Content = ContentOf[TextPart]


def no_other_tool(tool: Any) -> Any:
    """Return a tool unread; raise where it is of a type that is not taken."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    if isinstance(kind, str) and kind != "function":
        message = (
            f"tools of type {kind[:40]!r} are not supported; send functions, "
            "with a parameter of type 'string' for free text"
        )
        raise PydanticCustomError("no_function", "{message}", {"message": message})
    return tool


class FunctionCall(Strict):
    """The function of an earlier tool call; its arguments are JSON in a text."""

    name: str
    arguments: str | None = None


class ToolCall(Strict):
    """An earlier tool call of the assistant."""

    id: str | None = None
    type: Literal["function"] = "function"
    index: int | None = None
    function: FunctionCall


class TraceBlock(Strict):
    """An earlier trace as litellm hands it back; whoever signed it, it is taken as text."""

    type: Literal["thinking"]
    thinking: Text
    signature: str | None = None
    cache_control: dict[str, Any] | None = None

    @property
    def said(self) -> str:
        """The text."""
        return self.thinking


class ReasoningDetail(Strict):
    """A piece of an earlier trace as OpenRouter's clients hand it back."""

    type: Literal["reasoning.text", "reasoning.summary"]
    text: Text | None = None
    summary: Text | None = None
    id: str | None = None
    format: str | None = None
    index: int | None = None
    signature: str | None = None

    @property
    def said(self) -> str:
        """The text."""
        return self.text or self.summary or ""


Trace = TypeVar("Trace", TraceBlock, ReasoningDetail)
Blocks = Annotated[list[Trace] | None, BeforeValidator(lambda value: value or None)]


class Message(Strict):
    """One turn of the chat; an empty field that is not here is taken, since it says nothing."""

    neutral: ClassVar[Table] = MESSAGE

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: str | None = None
    reasoning_content: Text | None = None
    reasoning: Text | None = None  # vLLM's newer name of it
    thinking_blocks: Blocks[TraceBlock] = None  # these two where neither of those is given
    reasoning_details: Blocks[ReasoningDetail] = None
    tool_calls: list[ToolCall] | None = None
    function_call: Annotated[FunctionCall | None, BeforeValidator(lambda value: value or None)] = (
        None  # of 2023
    )
    tool_call_id: str | None = None
    provider_specific_fields: dict[str, Any] | None = None  # litellm's; it means nothing here
    cache_control: dict[str, Any] | None = None  # a hint, as a part's

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        empty: tuple[Any, ...] = ("", [], {})
        return {k: v for k, v in body.items() if k in cls.model_fields or v not in empty}

    @property
    def calls(self) -> list[ToolCall]:
        """The earlier calls, by either name."""
        if self.tool_calls or self.function_call is None:
            return self.tool_calls or []
        return [ToolCall(function=self.function_call)]

    @property
    def trace(self) -> str | None:
        """The earlier trace, by the first of its names that is given."""
        if self.reasoning_content is not None or self.reasoning is not None:
            return self.reasoning if self.reasoning_content is None else self.reasoning_content
        blocks = self.thinking_blocks or self.reasoning_details or ()
        return "".join(block.said for block in blocks) or None
