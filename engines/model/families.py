"""How a family of models writes a chat: one object a family, and the one place with its tags."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple


class Tags(NamedTuple):
    """What stands around a trace, or around tool calls."""

    open: str
    close: str


class ReasoningEffort(StrEnum):
    """OpenAI's names of how much a model may think."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


@dataclass(frozen=True, slots=True)
class Effort:
    """What one asks of a model; without `max_tokens` its trace has no budget."""

    is_thinking: bool = True
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class JsonCall:
    """A call as an object `{"name": ..., "arguments": ...}`."""

    @property
    def marks(self) -> tuple[str, ...]:
        """What a template has that writes such calls."""
        return ('"name": ',)


@dataclass(frozen=True, slots=True)
class XmlCall:
    """A call as an element with one element in it for each argument.

    An opening tag ends with the function's or the argument's name and `>`. A string stands in its
    element as it is, another value as JSON, in lines of their own. Nothing is escaped.
    """

    function: Tags
    parameter: Tags

    @property
    def marks(self) -> tuple[str, ...]:
        """What a template has that writes such calls."""
        return self.function.open, self.parameter.open


@dataclass(frozen=True, slots=True)
class CallFormat:
    """Tool calls: how one is written, and what stands around them.

    A grammar holds the model to all that it writes before the first call, between two, and after
    the last one, tags included. Who reads calls is more lenient, and needs the tags alone; a
    closing tag begins with a character that stands in no list of objects.
    """

    tags: Tags
    before: str
    between: str
    after: str
    call: JsonCall | XmlCall = JsonCall()


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """What a model writes around an answer, and what its card advises.

    `gap` are the newlines between a trace's closing tag and the answer. `directives` are the words
    of a message that switch thinking on (True) and off, `sampling` the settings with and without,
    `tool_sampling` what takes their place where there are tools to call; {} is nothing. Each of
    `roles` is a token with which the template begins messages. `answers_return`: the next turn's
    prompt may have an answer as it was written, its trace too. `efforts` says what a request's
    `reasoning_effort` means.
    """

    think: Tags
    gap: str
    calls: CallFormat
    directives: Mapping[bool, str]
    sampling: Mapping[bool, Mapping[str, float]]
    roles: tuple[str, ...]
    answers_return: bool
    efforts: Mapping[ReasoningEffort, Effort]
    tool_sampling: Mapping[str, float] = field(default_factory=dict)

    def settings(self, *, reasons: bool, has_tools: bool) -> Mapping[str, float]:
        """Return the card's sampling settings for an answer."""
        return (has_tools and self.tool_sampling) or self.sampling[reasons]


# Source: litellm's constants.py, DEFAULT_REASONING_EFFORT_*, for models that take a budget; it has
# none for the two highest, which leave the trace to the model.
EFFORTS = {
    ReasoningEffort.NONE: Effort(is_thinking=False),
    ReasoningEffort.MINIMAL: Effort(max_tokens=128),
    ReasoningEffort.LOW: Effort(max_tokens=1024),
    ReasoningEffort.MEDIUM: Effort(max_tokens=2048),
    ReasoningEffort.HIGH: Effort(max_tokens=4096),
    ReasoningEffort.XHIGH: Effort(),
    ReasoningEffort.MAX: Effort(),
}
# Source: chat template and model card of NVIDIA-Nemotron-Nano-9B-v2: "temperature 0.6, top_p 0.95
# for reasoning True and greedy search for reasoning False".
NEMOTRON_NANO_2 = ChatFormat(
    think=Tags("<think>", "</think>"),
    gap="\n\n",
    calls=CallFormat(
        Tags("<TOOLCALL>", "</TOOLCALL>"), before="<TOOLCALL>[", between=", ", after="]</TOOLCALL>"
    ),
    directives={True: "/think", False: "/no_think"},
    sampling={
        True: {"temperature": 0.6, "top_p": 0.95},
        False: {"temperature": 0.0, "top_p": 1.0},
    },
    roles=("<SPECIAL_10>", "<SPECIAL_11>"),
    efforts=EFFORTS,
    answers_return=False,  # it writes an answer without its trace, and without an empty one
)
# Traces as above; each call has tags of its own, as Hermes writes it. Source: chat template
# of Qwen3-8B, and its model card, "Best Practices".
QWEN3 = replace(
    NEMOTRON_NANO_2,
    calls=CallFormat(
        Tags("<tool_call>", "</tool_call>"),
        before="<tool_call>\n",
        between="\n</tool_call>\n<tool_call>\n",
        after="\n</tool_call>",
    ),
    sampling={
        True: {"temperature": 0.6, "top_p": 0.95, "top_k": 20},
        False: {"temperature": 0.7, "top_p": 0.8, "top_k": 20},
    },
    roles=("<|im_start|>",),
    answers_return=True,  # between the calls of one question, if the client gives the trace back
)
# Qwen3-Coder's calls in Qwen3's turns; one newline behind a trace. Source: chat template and model
# card of NVIDIA-Nemotron-3-Nano-30B-A3B: "temperature=1.0 and top_p=1.0 are recommended for
# reasoning tasks, while temperature=0.6 and top_p=0.95 are recommended for tool calling", "Use
# Greedy Search for reasoning off".
NEMOTRON_3 = replace(
    QWEN3,
    gap="\n",
    calls=CallFormat(
        Tags("<tool_call>", "</tool_call>"),
        before="<tool_call>\n",
        between="\n</tool_call>\n<tool_call>\n",
        after="\n</tool_call>\n",
        call=XmlCall(Tags("<function=", "</function>"), Tags("<parameter=", "</parameter>")),
    ),
    sampling={
        True: {"temperature": 1.0, "top_p": 1.0},
        False: {"temperature": 0.0, "top_p": 1.0},
    },
    tool_sampling={"temperature": 0.6, "top_p": 0.95},
)


def with_settings(family: ChatFormat, own: Mapping[str, float]) -> ChatFormat:
    """Return a family whose thinking answers are sampled as a checkpoint's own files say."""
    if not own:
        return family
    return replace(family, sampling={**family.sampling, True: {**family.sampling[True], **own}})


FAMILIES = (NEMOTRON_NANO_2, QWEN3, NEMOTRON_3)
DEFAULT = NEMOTRON_NANO_2  # of a checkpoint whose chat templates write no family's calls


def family_of(templates: Iterable[str]) -> ChatFormat:
    """Return the family whose tool calls one of a checkpoint's chat templates writes.

    Elements count before objects: a template with elements may show the tools as JSON.
    """
    sources = list(templates)
    by_call = sorted(FAMILIES, key=lambda family: isinstance(family.calls.call, JsonCall))
    for family in by_call:
        marks = (family.calls.tags.open, *family.calls.call.marks)
        if any(all(mark in source for mark in marks) for source in sources):
            return family
    return DEFAULT
