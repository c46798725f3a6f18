"""The request bodies of the OpenAI API, as far as this server takes them, and its own fields.

A field that is not here is refused by name, never ignored.
"""

from typing import Annotated, Any, ClassVar, Literal

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

from nemotrt.serve.front.neutral import (
    CHAT,
    COMPLETION,
    EITHER,
    MESSAGE,
    STREAM_OPTIONS,
    Table,
    describe,
    without_neutral,
)
from nemotrt.serve.request_limits import (
    MAX_MESSAGES,
    MAX_PROMPTS,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    MAX_TOOLS,
)

Text = Annotated[str, Field(max_length=1 << 24)]
Int32 = Annotated[int, Field(ge=0, lt=2**31)]
# Counted by check_limits(): of a union, pydantic would tell of the wrong branch.
StopStrings = Annotated[list[str], Field(json_schema_extra={"maxItems": MAX_STOP_STRINGS})]
Ids = Annotated[list[Int32], Field(min_length=1)]


def _prompt_kind(value: Any) -> str:
    """Return which form of a prompt a value is to be read as: trying all four costs much."""
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(value, list):
        return "text"
    return {int: "ids", list: "lists of ids"}.get(type(first), "texts")


Prompt = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[list[Text], Tag("texts"), Field(max_length=MAX_PROMPTS)]
    | Annotated[Ids, Tag("ids")]
    | Annotated[list[Ids], Tag("lists of ids"), Field(max_length=MAX_PROMPTS)],
    Discriminator(_prompt_kind),
]


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

    type: Literal["text"]
    text: Text
    cache_control: dict[str, Any] | None = None  # a hint, which can't change the answer

    @model_validator(mode="before")
    @classmethod
    def _say_what_is_no_text(cls, part: Any) -> Any:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            name = MEDIA.get(kind, f"parts of type {kind!r}")
            raise PydanticCustomError("not_text", f"{name} are not supported; send text")
        return part


MEDIA = {
    **dict.fromkeys(("image_url", "image", "input_image"), "images"),
    **dict.fromkeys(("input_audio", "audio_url", "audio"), "audio clips"),
    **dict.fromkeys(("video_url", "video"), "videos"),
    **dict.fromkeys(("file", "input_file"), "files"),
}


def _content_kind(content: Any) -> str | None:
    """Return the tag of a message's content; tags in brackets stay out of error messages."""
    if isinstance(content, str):
        return "(text)"
    return "(parts)" if isinstance(content, list) else None


Content = Annotated[
    Annotated[Text, Tag("(text)")] | Annotated[list[TextPart], Tag("(parts)")],
    Discriminator(
        _content_kind,
        custom_error_type="content",
        custom_error_message="Input should be a text or a list of text parts",
    ),
]


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

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        empty: tuple[Any, ...] = ("", [], {})
        return {k: v for k, v in body.items() if k in cls.model_fields or v not in empty}


class Function(Strict):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    """A tool; only functions are taken."""

    type: Literal["function"]
    function: Function


class StreamOptions(Strict):
    """Whether a stream ends with usage counts, and whether every chunk has those so far."""

    neutral: ClassVar[Table] = STREAM_OPTIONS

    include_usage: bool = False
    continuous_usage_stats: bool = False


class JsonSchema(Strict):
    """A named JSON schema."""

    name: str | None = None
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Strict):
    """The form of the answer, kept by masking logits in the engine."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_has_its_type(self) -> "ResponseFormat":
        if self.json_schema is not None and self.type != "json_schema":
            raise PydanticCustomError("unused", "json_schema goes with type 'json_schema' alone")
        return self


class FunctionName(Strict):
    """The name of a function."""

    name: str


class NamedToolChoice(Strict):
    """The one function that must be called."""

    type: Literal["function"]
    function: FunctionName


class Sampling(Strict):
    """What both endpoints take; the fields after `prompt_cache_key` are this server's own."""

    neutral: ClassVar[Table] = EITHER

    model: str
    max_tokens: Int32 | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int = Field(default=1, ge=1, le=16)
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: str | StopStrings | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    presence_penalty: float = Field(default=0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0, ge=-2, le=2)
    user: str | None = None  # this and the next three can't change an answer
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    top_k: int = Field(default=0, ge=-1, lt=2**31)  # 0, and vLLM's -1, are off
    repetition_penalty: float = Field(default=1, gt=0, le=100)
    min_tokens: Int32 = 0
    ignore_eos: bool = False
    stop_token_ids: list[Int32] = Field(default=[], max_length=MAX_STOP_TOKEN_IDS)
    priority: int = Field(default=0, ge=-(2**31), lt=2**31)
    timeout_ms: Int32 | None = Field(default=None, ge=1)
    prompt_logprobs: int | None = Field(default=None, ge=0, le=20)

    @property
    def stop_words(self) -> list[str]:
        """The stop strings as a list; an empty one asks for nothing."""
        words = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [word for word in words if word]


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    neutral: ClassVar[Table] = CHAT

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: Int32 | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    max_thinking_tokens: Int32 | None = None
    separate_reasoning: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionRequest(Sampling):
    """POST /v1/completions; `prompt` is a text, texts, ids, or lists of ids."""

    neutral: ClassVar[Table] = COMPLETION

    prompt: Prompt
    max_tokens: Int32 | None = None  # 0: the prompt alone, which echo or prompt_logprobs show
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool = False
    max_thinking_tokens: Int32 | None = None
    add_special_tokens: bool = True

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts as a list of texts or of ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt  # type: ignore[return-value]
