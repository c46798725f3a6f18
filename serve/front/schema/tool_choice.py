"""Which tools an answer may or must call, as chats and as responses write it."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from nemotrt.serve.front.schema.messages import Strict
from nemotrt.serve.requests.limits import MAX_TOOLS

MODES = ("none", "auto", "required")
Mode = Literal["auto", "required"]


class FunctionName(Strict):
    """The name of a function."""

    name: str


class NamedToolChoice(Strict):
    """The one function that must be called."""

    type: Literal["function"]
    function: FunctionName


class AllowedList(Strict):
    """Those of the tools that are offered, and whether one must be called."""

    mode: Mode
    tools: list[NamedToolChoice] = Field(min_length=1, max_length=MAX_TOOLS)


class AllowedTools(Strict):
    """Offers some of the tools: the model is shown these alone."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedList


class NamedFunction(FunctionName):
    """The one function that must be called, as responses name it."""

    type: Literal["function"]


class AllowedFunctions(Strict):
    """Offers some of the tools, as responses name them."""

    type: Literal["allowed_tools"]
    mode: Mode
    tools: list[NamedFunction] = Field(min_length=1, max_length=MAX_TOOLS)


def _kind(choice: Any) -> str | None:
    """Return the tag of a choice; tags in brackets stay out of error messages."""
    if isinstance(choice, str):
        return "(mode)" if choice in MODES else None
    kind = choice.get("type") if isinstance(choice, dict) else getattr(choice, "type", None)
    return {"function": "(function)", "allowed_tools": "(allowed)"}.get(str(kind))


BY_KIND = Discriminator(
    _kind,
    custom_error_type="tool_choice",
    custom_error_message="Input should be 'none', 'auto', 'required', a function or allowed_tools",
)
ByMode = Annotated[Literal["none", "auto", "required"], Tag("(mode)")]
ToolChoice = Annotated[
    ByMode
    | Annotated[NamedToolChoice, Tag("(function)")]
    | Annotated[AllowedTools, Tag("(allowed)")],
    BY_KIND,
]


def _old_kind(choice: Any) -> str | None:
    if isinstance(choice, str):
        return "(mode)" if choice in ("none", "auto") else None
    return "(function)" if isinstance(choice, dict | FunctionName) else None


OldChoice = Annotated[  # of 2023
    Annotated[Literal["none", "auto"], Tag("(mode)")] | Annotated[FunctionName, Tag("(function)")],
    Discriminator(
        _old_kind,
        custom_error_type="function_call",
        custom_error_message="Input should be 'none', 'auto' or a function in an object",
    ),
]
FunctionChoice = Annotated[
    ByMode
    | Annotated[NamedFunction, Tag("(function)")]
    | Annotated[AllowedFunctions, Tag("(allowed)")],
    BY_KIND,
]
