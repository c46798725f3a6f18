"""From a request of the API to the model's input tensors."""

from typing import Any

from nemotrt.engines.text.chat.turn import Turn
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.openai.guided import chat_guide_inputs, guide_inputs
from nemotrt.serve.front.schema.requests import ChatRequest, CompletionRequest, Sampling
from nemotrt.wire.request import DEFAULTS

OPENAI_TEMPERATURE = 1.0  # Source: OpenAI's API reference, completions
DEFAULT_COMPLETION_TOKENS = 16  # Source: OpenAI's API reference, completions
# What a request may say by the same name at both ends; OpenAI's `stop` is `stop_words`.
SHARED = [name for name in DEFAULTS if name not in ("stop", "seed", "stop_token_ids", "bad_words")]
Inputs = dict[str, Any]


Prompt = str | list[int]


def chat_inputs(
    request: ChatRequest, prompt: Prompt, turn: Turn, *, separate_reasoning: bool
) -> Inputs:
    """Return the tensors of a chat; what is not given is as the model card says.

    Where the trace is part of the content, a stop string ends it too.
    """
    inputs = _sampling_inputs(request, prompt)
    inputs["add_special_tokens"] = False  # the template has written them
    inputs["return_num_reasoning_tokens"] = True
    if request.temperature is None:
        has_tools = bool(request.tools) and request.tool_choice != "none"
        settings = turn.chat.settings(reasons=turn.expects_trace, has_tools=has_tools)
        given = {name for name in request.model_fields_set if getattr(request, name) is not None}
        inputs |= {name: value for name, value in settings.items() if name not in given}
    if request.top_logprobs and not request.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true.", param="top_logprobs")
    bounds = [n for n in (request.max_completion_tokens, request.max_tokens) if n is not None]
    if bounds:
        inputs["max_tokens"] = min(bounds)
    budgets = [request.max_thinking_tokens]
    if request.reasoning_effort is not None:
        budgets.append(turn.chat.efforts[request.reasoning_effort].max_tokens)
    known = [budget for budget in budgets if budget is not None]
    if known:
        inputs["max_thinking_tokens"] = min(known)
    if not separate_reasoning:
        inputs["stop_in_reasoning"] = True
    if request.logprobs:
        inputs |= _logprob_inputs(request.top_logprobs or 0)
    if request.prompt_logprobs is not None:
        inputs |= _prompt_logprob_inputs(request, request.prompt_logprobs)
    return inputs | chat_guide_inputs(request, turn.chat.calls)


def completion_inputs(request: CompletionRequest, prompt: Prompt) -> Inputs:
    """Return the tensors of one prompt's completion.

    Raises:
        ApiError: a field has no effect without another one.
    """
    inputs = _sampling_inputs(request, prompt)
    inputs.setdefault("temperature", OPENAI_TEMPERATURE)
    inputs["max_tokens"] = _completion_tokens(request)
    if request.logprobs is not None:
        inputs |= _logprob_inputs(request.logprobs)
    shown = [request.logprobs] if request.echo else []
    wanted = [num_top for num_top in (*shown, request.prompt_logprobs) if num_top is not None]
    if wanted:
        inputs |= _prompt_logprob_inputs(request, max(wanted))
    return inputs | guide_inputs(request)


def _completion_tokens(request: CompletionRequest) -> int:
    """Return the output's length; 0 is for a prompt that the answer shows.

    Raises:
        ApiError: the answer would hold nothing.
    """
    if request.max_tokens == 0 and not request.echo and request.prompt_logprobs is None:
        text = "max_tokens must be at least 1; 0 needs echo or prompt_logprobs."
        raise ApiError(400, text, param="max_tokens")
    return DEFAULT_COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens


def choices_of(inputs: Inputs, count: int) -> list[Inputs]:
    """Return the tensors of `count` choices; with a seed each has its own, in order."""
    if "seed" not in inputs:
        return [inputs] * count
    return [inputs | {"seed": (inputs["seed"] + i) % 2**64} for i in range(count)]


def prompt_ids(prompt: Prompt, files: EngineFiles, *, add_special_tokens: bool) -> list[int]:
    """Return a prompt's tokens, as the engine makes them.

    Raises:
        ApiError: it is a text, and there is no tokenizer.
    """
    if isinstance(prompt, list):
        return prompt
    if files.tokenizer is None:
        raise ApiError(400, "the engine has no tokenizer; give prompt as ids.", param="prompt")
    return files.tokenizer.encode(prompt, add_special_tokens=add_special_tokens)


def cut_prompt(
    request: Sampling, prompt: Prompt, files: EngineFiles, *, add_special_tokens: bool
) -> Prompt:
    """Return the last tokens of a prompt that is longer than `truncate_prompt_tokens`.

    The special tokens with which the tokenizer begins a text stay. -1 is what the engine holds
    beside the output. What is short enough is returned as it is.
    """
    limit = request.truncate_prompt_tokens
    if limit is None:
        return prompt
    if limit < 0:
        limit = max(1, files.limits.max_seq_len - (request.max_tokens or 1))
    ids = prompt_ids(prompt, files, add_special_tokens=add_special_tokens)
    if len(ids) <= limit:
        return prompt
    first = prompt_ids("", files, add_special_tokens=add_special_tokens) if files.tokenizer else []
    num_first = len(first) if isinstance(prompt, str) and ids[: len(first)] == first else 0
    num_first = min(num_first, limit)
    return ids[:num_first] + ids[len(ids) - (limit - num_first) :]


def _sampling_inputs(request: Sampling, prompt: Prompt) -> Inputs:
    """Return the tensors that both endpoints share; what is not given stays out."""
    given = {name: getattr(request, name) for name in SHARED if name in type(request).model_fields}
    inputs: Inputs = {
        name: value for name, value in given.items() if value not in (None, DEFAULTS[name])
    }
    inputs |= {
        "text_input" if isinstance(prompt, str) else "input_ids": prompt,
        "top_k": max(request.top_k, 0),
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }
    optional = {
        "seed": None if request.seed is None else request.seed % 2**64,
        "stop_words": request.stop_words or None,
        "stop_token_ids": request.stop_token_ids or None,
        "bad_words": [word for word in request.bad_words if word.strip()] or None,
        "logit_bias_ids": [int(token) for token in request.logit_bias] or None,
        "logit_bias_values": list(request.logit_bias.values()) or None,
    }
    if request.lora_name is not None:
        inputs["lora_name"] = request.lora_name
    if request.return_token_ids:
        inputs["return_output_ids"] = True
    if request.stream_options is not None and request.stream_options.continuous_usage_stats:
        inputs["return_progress"] = True
    return inputs | {name: value for name, value in optional.items() if value is not None}


def _prompt_logprob_inputs(request: Sampling, num_top: int) -> Inputs:
    """Return the tensors that ask for the log-probabilities of the prompt.

    Raises:
        ApiError: the answer is a stream, whose chunks have no place for prompt_logprobs.
    """
    if request.stream and request.prompt_logprobs is not None:
        text = "prompt_logprobs needs stream: false; completions stream them by echo and logprobs."
        raise ApiError(400, text, param="prompt_logprobs")
    return {"return_prompt_log_probs": True, "num_top_prompt_log_probs": num_top}


def _logprob_inputs(num_top: int) -> Inputs:
    """Return the tensors that ask for log-probabilities."""
    return {"return_log_probs": True, "num_top_log_probs": num_top, "return_output_ids": True}
