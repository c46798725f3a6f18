"""What a request may say: the fields of every door to an engine follow from these.

A number added to `SamplingNumbers` is at once an option of the command line, a field of the API, an
input of Triton's model and of the engine's process, and an argument of TensorRT-LLM's. What it
does to logits stands in `nemotrt.engines.runtime.sampling`. A field of another kind needs a line in
the API's schema, and one in `serve/requests/sampling.py` where SamplingParams names it otherwise.
"""

import math
from dataclasses import Field, dataclass, field, fields
from typing import Any

KEY = "number"
TYPE = "type"
INT32 = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Number:
    """What a number may be, from `least` to `most`, and the value that changes nothing."""

    neutral: float | None
    least: float
    most: float
    is_above: bool = False  # `least` itself is not allowed
    help: str = ""

    def allows(self, value: float) -> bool:
        """Whether a request may have `value`; NaN and infinity never."""
        is_enough = value > self.least if self.is_above else value >= self.least
        return is_enough and value <= self.most and math.isfinite(value)

    @property
    def legal(self) -> str:
        """The legal values in words."""
        least = f"above {self.least}" if self.is_above else f"{self.least}"
        if math.isinf(self.most):
            return least if self.is_above else f"{least} or more"
        return f"{least}, at most {self.most}" if self.is_above else f"{least} to {self.most}"


def number(neutral: float | None, least: float, most: float = math.inf, **told: Any) -> Any:
    """Return the dataclass field of a number; the arguments are Number's, `type` is Triton's."""
    more = {TYPE: told.pop(TYPE)} if TYPE in told else {}
    return field(default=neutral, metadata={KEY: Number(neutral, least, most, **told), **more})


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingNumbers:
    """The plain numbers of sampling, which every door takes by these names; penalties as vLLM's."""

    min_p: float = number(
        0.0,
        0,
        1,
        help="Least probability of a token, as a share of the likeliest token's; 0 is off.",
    )
    repetition_penalty: float = number(
        1.0,
        0,
        is_above=True,
        help="Factor against repeating a token of prompt or output; 1 is off.",
    )
    presence_penalty: float = number(
        0.0, -2, 2, help="Subtracted from the logit of each token that the output has; 0 is off."
    )
    frequency_penalty: float = number(
        0.0,
        -2,
        2,
        help="Subtracted from a token's logit once for each time the output has it; 0 is off.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest(SamplingNumbers):
    """One request, by the names of NVIDIA's frontends; None: the client gave no value.

    Each field is a tensor of Triton's model, of the type that its annotation says. What each does
    is in docs/reference/triton.md. Ranges of numbers are in `RANGES`, and are checked where
    SamplingParams is made of them.
    Source: tensorrtllm_backend, all_models/inflight_batcher_llm/ensemble/config.pbtxt.
    """

    text_input: str | None = None
    input_ids: tuple[int, ...] | None = None  # ours: token ids instead of text
    max_tokens: int | None = number(None, 0, INT32)
    min_tokens: int = number(0, 0, INT32)
    stream: bool = False
    stop: bool = False  # ends the live request that has the same request id
    stop_words: tuple[str, ...] = ()
    bad_words: tuple[str, ...] = ()
    embedding_bias_words: tuple[str, ...] = ()
    embedding_bias_weights: tuple[float, ...] = ()
    end_id: int | None = None
    pad_id: int | None = None  # nothing is padded, so it can't change the answer
    top_k: int = number(0, 0, INT32)  # 0 is off
    top_p: float = number(1.0, 0, 1, is_above=True)
    temperature: float | None = number(None, 0)
    length_penalty: float = 1.0
    seed: int | None = number(None, 0, 2**64 - 1, type="UINT64")
    beam_width: int = 1
    num_return_sequences: int = 1
    exclude_input_in_output: bool = True
    return_log_probs: bool = False
    return_num_input_tokens: bool = False
    return_num_output_tokens: bool = False
    guided_decoding_guide_type: str | None = None
    guided_decoding_guide: str | None = None
    num_top_log_probs: int = 0  # ours, from here on
    return_output_ids: bool = False
    return_progress: bool = False  # num_output_tokens with every response
    add_special_tokens: bool = True
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    max_thinking_tokens: int | None = number(None, 0, INT32)
    stop_in_reasoning: bool = False  # stop_words end a reasoning trace too
    include_stop_str_in_output: bool = False  # the text ends with the stop string that ended it
    skip_special_tokens: bool = True  # false: the text shows them
    return_num_reasoning_tokens: bool = False
    priority: int = number(0, -INT32 - 1, INT32)
    timeout_ms: int | None = number(None, 1, INT32)
    return_prompt_log_probs: bool = False
    num_top_prompt_log_probs: int = 0
    logit_bias_ids: tuple[int, ...] = ()
    logit_bias_values: tuple[float, ...] = ()
    lora_name: str | None = None  # one of the engine's adapters; None: none
    cache_salt: str | None = None  # whose kept prefixes it may use; None: those without a salt


def numbers_of(request: type) -> dict[str, Number]:
    """Return the numbers of a dataclass by name."""
    found: tuple[Field[Any], ...] = fields(request)
    return {item.name: item.metadata[KEY] for item in found if KEY in item.metadata}


NUMBERS = numbers_of(SamplingNumbers)
RANGES = numbers_of(GenerationRequest)
DEFAULTS = {item.name: item.default for item in fields(GenerationRequest)}
