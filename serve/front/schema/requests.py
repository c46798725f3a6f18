"""The request bodies of the OpenAI API, as far as this server takes them, and its own fields.

A field that is not here is refused by name, never ignored.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, PrivateAttr, Tag, model_validator
from pydantic_core import PydanticCustomError

from nemotrt.engines.model.families import ReasoningEffort
from nemotrt.serve.front.schema.messages import (
    Content,
    Message,
    Strict,
    Text,
    no_other_tool,
)
from nemotrt.serve.front.schema.neutral import CHAT, COMPLETION, EITHER, Table
from nemotrt.serve.front.schema.numbers import LogitBias, number_field, numeric, with_numbers
from nemotrt.serve.front.schema.structured import (
    Form,
    Guided,
    NvExt,
    ResponseFormat,
    StructuredOutputs,
)
from nemotrt.serve.front.schema.tool_choice import OldChoice, ToolChoice
from nemotrt.serve.requests.limits import (
    MAX_MESSAGES,
    MAX_PROMPTS,
    MAX_SALT_CHARACTERS,
    MAX_STOP_STRINGS,
    MAX_STOP_TOKEN_IDS,
    MAX_TOOLS,
)

Int32 = Annotated[int, Field(strict=True, ge=0, lt=2**31)]  # of many: no Python function per item
# Counted by check_limits(): of a union, pydantic would tell of the wrong branch.
StopStrings = Annotated[list[str], Field(json_schema_extra={"maxItems": MAX_STOP_STRINGS})]
Ids = Annotated[list[Int32], Field(min_length=1)]


def _prompt_kind(value: Any) -> str:
    """Return which form of a prompt a value is to be read as: trying all four costs much."""
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(value, list):
        return "(text)"
    return {int: "(ids)", list: "(lists of ids)"}.get(type(first), "(texts)")


Prompt = Annotated[
    Annotated[Text, Tag("(text)")]
    | Annotated[list[Text], Tag("(texts)"), Field(max_length=MAX_PROMPTS)]
    | Annotated[Ids, Tag("(ids)")]
    | Annotated[list[Ids], Tag("(lists of ids)"), Field(max_length=MAX_PROMPTS)],
    Discriminator(_prompt_kind),
]


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
    cache_control: dict[str, Any] | None = Field(default=None, exclude=True)  # a hint, as a part's

    _say_what_is_no_function = model_validator(mode="before")(no_other_tool)


class Prediction(Strict):
    """A guess at the answer. It can't change the answer, so it is taken, and not used."""

    type: Literal["content"]
    content: Content


class StreamOptions(Strict):
    """Whether a stream ends with usage counts, whether every chunk has those so far.

    `include_obfuscation` pads the chunks, so that their sizes don't tell what they say.
    """

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool = False


@with_numbers
class Sampling(Guided):
    """What both endpoints take, beside the numbers that they take as the engine does.

    The fields after `session_id` are this server's own.
    """

    neutral: ClassVar[Table] = EITHER

    model: str | None = None  # None: the one that is served
    max_tokens: int | None = number_field("max_tokens", least=1)
    temperature: float | None = number_field("temperature", most=2)
    top_p: float | None = number_field("top_p", neutral=None)
    n: int = numeric(default=1, ge=1, le=16)
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: str | StopStrings | None = None
    seed: int | None = number_field("seed", least=-(2**63), most=2**63 - 1)
    logit_bias: LogitBias = Field(default={})
    user: str | None = None  # this and the next four can't change an answer
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    session_id: str | None = None
    top_k: int = number_field("top_k", least=-1)  # vLLM's -1 is off too
    repetition_penalty: float = number_field("repetition_penalty", most=100)
    ignore_eos: bool = False
    stop_token_ids: list[Int32] = Field(default=[], max_length=MAX_STOP_TOKEN_IDS)
    prompt_logprobs: int | None = numeric(default=None, ge=0, le=20)
    cache_salt: str | None = Field(default=None, min_length=1, max_length=MAX_SALT_CHARACTERS)
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    max_thinking_tokens: int | None = number_field("max_thinking_tokens")
    thinking_token_budget: int | None = number_field("max_thinking_tokens", least=-1)  # vLLM's
    nvext: NvExt | None = None
    bad_words: StopStrings = Field(default=[])
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    truncate_prompt_tokens: int | None = numeric(default=None, ge=-1, lt=2**31)
    return_token_ids: bool = False
    _lora_name: str | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_thinking_budget(self) -> Self:
        """Take the budget by any of its names."""
        given = {
            "max_thinking_tokens": self.max_thinking_tokens,
            "thinking_token_budget": self.thinking_token_budget,
            "nvext.max_thinking_tokens": None
            if self.nvext is None
            else self.nvext.max_thinking_tokens,
        }
        budgets = {name: value for name, value in given.items() if value not in (None, -1)}
        if len(set(budgets.values())) > 1:
            names = " and ".join(budgets)
            raise PydanticCustomError("budgets", "{names} differ", {"names": names})
        self.max_thinking_tokens = next(iter(budgets.values()), None)
        return self

    @property
    def lora_name(self) -> str | None:
        """The adapter that the model's name means; no field of a body."""
        return self._lora_name

    @lora_name.setter
    def lora_name(self, name: str | None) -> None:
        self._lora_name = name

    @property
    def forms(self) -> list[Form]:
        """What the request says of the answer's form, by each field that says something."""
        nested = (self.response_format, self.structured_outputs)
        found = [form for part in nested if part is not None for form in part.forms]
        found += self.guided_forms()
        return found + (self.nvext.guided_forms("nvext.") if self.nvext else [])

    @property
    def stop_words(self) -> list[str]:
        """The stop strings as a list; an empty one asks for nothing."""
        words = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [word for word in words if word]


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    neutral: ClassVar[Table] = CHAT

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = number_field("max_tokens", least=1)
    logprobs: bool | None = None
    top_logprobs: int | None = numeric(default=None, ge=0, le=20)
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[Function], Field(max_length=MAX_TOOLS)] | None = None  # of 2023
    function_call: OldChoice | None = None
    prediction: Prediction | None = None
    reasoning_effort: ReasoningEffort | None = None
    include_reasoning: bool = True
    separate_reasoning: bool | None = None
    add_generation_prompt: bool | None = None  # unless the final message is continued
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None


class CompletionRequest(Sampling):
    """POST /v1/completions; `prompt` is a text, texts, ids, or lists of ids."""

    neutral: ClassVar[Table] = COMPLETION

    prompt: Prompt
    max_tokens: int | None = number_field("max_tokens")  # 0: only what echo or its scores show
    logprobs: int | None = numeric(default=None, ge=0, le=20)
    echo: bool = False
    add_special_tokens: bool = True

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts as a list of texts or of ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if self.prompt and isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt  # type: ignore[return-value]
