"""From a request of the API to the model's input tensors."""

from typing import Any

from nemotrt.engines.chat import sampling_defaults
from nemotrt.engines.turn import Turn
from nemotrt.errors import ConfigError
from nemotrt.serve.front.api_error import ApiError
from nemotrt.serve.front.engine_files import EngineFiles
from nemotrt.serve.front.guided import guide_inputs
from nemotrt.serve.front.schema import ChatRequest, CompletionRequest, Message, Sampling

OPENAI_TEMPERATURE = 1.0  # Source: OpenAI's API reference, completions
DEFAULT_COMPLETION_TOKENS = 16  # Source: OpenAI's API reference, completions
Inputs = dict[str, Any]


def chat_prompt(request: ChatRequest, files: EngineFiles) -> str:
    """Return the text that the chat template makes of the messages and tools.

    Raises:
        ApiError: the engine has no template, or the template refuses the messages.
    """
    if files.template is None:
        raise ApiError(400, "the engine has no chat template; use /v1/completions.")
    tools = [tool.model_dump(exclude_none=True) for tool in request.tools or []]
    variables = dict(request.chat_template_kwargs or {})
    if tools and request.tool_choice != "none":
        variables["tools"] = tools
    try:
        return files.template.render([_message(m) for m in request.messages], **variables)
    except ConfigError as error:
        raise ApiError(400, error.message, param="messages") from error


def chat_inputs(
    request: ChatRequest, prompt: str, turn: Turn, *, separate_reasoning: bool
) -> Inputs:
    """Return the tensors of a chat; what is not given is as the model card says.

    Where the trace is part of the content, a stop string ends it too.
    """
    defaults = sampling_defaults(reasons=turn.expects_trace)
    inputs = _sampling_inputs(request)
    inputs["text_input"] = prompt
    inputs["add_special_tokens"] = False  # the template has written them
    if request.temperature is None:
        inputs["temperature"] = defaults["temperature"]
        if request.top_p is None:
            inputs["top_p"] = defaults["top_p"]
    max_tokens = request.max_completion_tokens or request.max_tokens
    if max_tokens is not None:
        inputs["max_tokens"] = max_tokens
    if not separate_reasoning:
        inputs["stop_in_reasoning"] = True
    if request.max_thinking_tokens is not None:
        inputs["max_thinking_tokens"] = request.max_thinking_tokens
    if request.logprobs:
        inputs |= _logprob_inputs(request.top_logprobs or 0)
    return inputs | guide_inputs(request)


def completion_inputs(request: CompletionRequest, prompt: str | list[int]) -> Inputs:
    """Return the tensors of one prompt's completion."""
    inputs = _sampling_inputs(request)
    inputs["text_input" if isinstance(prompt, str) else "input_ids"] = prompt
    inputs["add_special_tokens"] = request.add_special_tokens
    inputs.setdefault("temperature", OPENAI_TEMPERATURE)
    inputs["max_tokens"] = request.max_tokens or DEFAULT_COMPLETION_TOKENS
    if request.max_thinking_tokens is not None:
        inputs["max_thinking_tokens"] = request.max_thinking_tokens
    if request.logprobs is not None:
        inputs |= _logprob_inputs(request.logprobs)
    return inputs


def choices_of(inputs: Inputs, count: int) -> list[Inputs]:
    """Return the tensors of `count` choices; with a seed each has its own, in order."""
    if "seed" not in inputs:
        return [inputs] * count
    return [inputs | {"seed": (inputs["seed"] + i) % 2**64} for i in range(count)]


def _message(message: Message) -> dict[str, Any]:
    """Return a message as chat templates know it."""
    content = message.content
    if isinstance(content, list):
        content = "".join(part.text for part in content)
    if message.tool_calls:
        calls = [call.model_dump(exclude_none=True) for call in message.tool_calls]
        return {"role": "assistant", "content": content or "", "tool_calls": calls}
    role = "system" if message.role == "developer" else message.role
    return {"role": role, "content": content or ""}


def _sampling_inputs(request: Sampling) -> Inputs:
    """Return the tensors that both endpoints share; what is not given stays out."""
    inputs: Inputs = {
        "stream": request.stream,
        "top_k": request.top_k,
        "repetition_penalty": request.repetition_penalty,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "min_tokens": request.min_tokens,
        "ignore_eos": request.ignore_eos,
        "priority": request.priority,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }
    optional = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "timeout_ms": request.timeout_ms,
        "seed": None if request.seed is None else request.seed % 2**64,
        "stop_words": request.stop_words or None,
        "stop_token_ids": request.stop_token_ids or None,
    }
    if request.stream_options is not None and request.stream_options.continuous_usage_stats:
        inputs["return_progress"] = True
    return inputs | {name: value for name, value in optional.items() if value is not None}


def _logprob_inputs(num_top: int) -> Inputs:
    """Return the tensors that ask for log-probabilities."""
    return {"return_log_probs": True, "num_top_log_probs": num_top, "return_output_ids": True}
