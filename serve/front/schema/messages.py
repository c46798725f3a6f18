"""The messages of a chat's body, and what every part of a body has in common."""

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
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


class Message(Strict):
    """One turn of the chat; an empty field that is not here is taken, since it says nothing."""

    neutral: ClassVar[Table] = MESSAGE

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    reasoning_content: Text | None = None
    reasoning: Text | None = None  # vLLM's newer name of it
    tool_calls: list[ToolCall] | None = None
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
