"""Fields of other servers that this one does not have: what is taken of them, and why no more.

Clients send values because they serialize defaults. Those that ask for what happens anyway are
taken. Any other is refused, with the reason and the nearest thing that works. A null says that a
field is not given, and is taken for every field.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

Json = dict[str, Any]


class Neutral(NamedTuple):
    """The values that change nothing, and why; what to do instead of sending another one."""

    values: tuple[Any, ...]
    why: str
    instead: str = "leave it out"
    same_as: str | None = None  # a field whose own value is neutral too

    def refusal(self, name: str) -> str:
        """Return what a request hears that has another value of the field `name`."""
        return f"{name} is not supported: {self.why}; {self.instead}."


Table = Mapping[str, Neutral]


def none(why: str, instead: str = "leave it out") -> Neutral:
    """Return a field of which no value is neutral."""
    return Neutral((), why, instead)


# Of OpenAI's and vLLM's endpoints.
EITHER: Table = {
    "best_of": Neutral((1,), "each choice is returned", "send n, and choose", same_as="n"),
    "use_beam_search": Neutral((False,), "there is no beam search"),
    "length_penalty": Neutral((1,), "there is no beam search"),
    "allowed_token_ids": none("no list of tokens is kept to", "send structured_outputs"),
    "logprob_token_ids": none("scores are of the likeliest tokens", "send more of these"),
    "spaces_between_special_tokens": Neutral((True,), "tokens stand as they are"),
    "return_tokens_as_token_ids": Neutral(
        (False,), "tokens are named by their text", "send return_token_ids: true"
    ),
    "return_token_offsets": Neutral((False,), "only a renderer has them", "use text_offset"),
    "return_mm_kwargs": Neutral((True,), "messages are text"),
    "return_prompt_text": Neutral((False,), "the prompt is not in the answer"),
    "truncation_side": Neutral(("left",), "a prompt is cut at its beginning"),
    "store": Neutral((False,), "nothing is stored"),
    "service_tier": Neutral(("auto", "default"), "there is one tier", "send priority"),
    "prompt_cache_options": none("prefixes are kept as the server's options say"),
    "prompt_cache_retention": Neutral(("in_memory",), "prefixes are kept in memory alone"),
    "watermarking": Neutral((False,), "there is no watermark"),
    "repetition_detection": none("nothing watches for it", "send repetition_penalty"),
    "stream_interval": Neutral((1,), "chunks come as the server's --max-chunks-per-s says"),
    "request_id": none("a request's id is a header", "send X-Request-Id"),
    "kv_transfer_params": none("states stay in their engine"),
    "ec_transfer_params": none("states stay in their engine"),
    "vllm_xargs": none("there are no extensions"),
    "routed_experts_prompt_start": Neutral((0,), "no experts are told of"),
    "detokenize": Neutral((True,), "the answer is text", "send return_token_ids: true"),
    # llama.cpp's
    "grammar": Neutral(("",), "it has another name here", "send structured_outputs.grammar"),
    "json_schema": none("it has another name here", "send structured_outputs.json"),
    "repeat_penalty": Neutral((1,), "it has another name here", "send repetition_penalty"),
    "repeat_last_n": none("penalties are of the whole text"),
    "n_predict": Neutral((-1,), "it has another name here", "send max_tokens"),
    "n_cmpl": Neutral((1,), "it has another name here", "send n"),
    "n_keep": Neutral((0,), "no text is shifted", "send truncate_prompt_tokens"),
    "n_discard": Neutral((0,), "no text is shifted"),
    "n_indent": Neutral((0,), "lines are not counted"),
    "n_probs": Neutral((0,), "it has another name here", "send logprobs"),
    "post_sampling_probs": Neutral((False,), "scores are of the model's own distribution"),
    "min_keep": Neutral((0,), "the samplers keep what they say"),
    "typical_p": Neutral((1,), "there is no such sampler", "send min_p"),
    "top_n_sigma": Neutral((-1,), "there is no such sampler", "send min_p"),
    "mirostat": Neutral((0,), "there is no such sampler", "send min_p"),
    "mirostat_tau": none("there is no such sampler", "send min_p"),
    "mirostat_eta": none("there is no such sampler", "send min_p"),
    "dynatemp_range": Neutral((0,), "the temperature is one number", "send temperature"),
    "dynatemp_exponent": Neutral((1,), "the temperature is one number", "send temperature"),
    "xtc_probability": Neutral((0,), "there is no such sampler", "send min_p"),
    "xtc_threshold": none("there is no such sampler", "send min_p"),
    "dry_multiplier": Neutral((0,), "there is no such sampler", "send repetition_penalty"),
    "dry_base": none("there is no such sampler", "send repetition_penalty"),
    "dry_allowed_length": none("there is no such sampler", "send repetition_penalty"),
    "dry_penalty_last_n": none("there is no such sampler", "send repetition_penalty"),
    "dry_sequence_breakers": none("there is no such sampler", "send repetition_penalty"),
    "samplers": none("their order is temperature, min_p, top_k, top_p"),
    "t_max_predict_ms": Neutral((0,), "it has another name here", "send timeout_ms"),
    "id_slot": Neutral((-1,), "the scheduler chooses the slot"),
    "cache_prompt": Neutral((True,), "prefixes are kept as the server's options say"),
    "n_cache_reuse": Neutral((0,), "a prefix alone is used again"),
    "return_tokens": Neutral((False,), "it has another name here", "send return_token_ids"),
    "timings_per_token": Neutral((False,), "/metrics has the times"),
    "return_progress": Neutral((False,), "a prompt's progress is not told"),
    "response_fields": Neutral(([],), "an answer has all its fields"),
    "lora": Neutral(([],), "a model's name chooses the adapter", "send model: NAME"),
    "image_data": Neutral(([],), "there are no images"),
    "verbose": Neutral((False,), "the prompt is not in the answer"),
    "sse_ping_interval": Neutral((-1,), "a stream has no pings"),
    "adaptive_target": Neutral((-1,), "there is no such sampler", "send min_p"),
    "adaptive_decay": none("there is no such sampler", "send min_p"),
    "backend_sampling": none("the engine has one sampler"),
    "grammar_lazy": Neutral((False,), "a grammar holds from the answer's first token"),
}
CHAT: Table = {
    **EITHER,
    "add_special_tokens": Neutral((False,), "the chat template writes them"),
    "chat_template": none("the engine's own is used", "send chat_template_kwargs"),
    "documents": Neutral(([],), "no template shows them", "send them in a message"),
    "echo": Neutral((False,), "the prompt is not in the answer"),
    "modalities": Neutral((["text"],), "answers are text"),
    "audio": none("answers are text"),
    "moderation": none("nothing is moderated"),
    "verbosity": Neutral(("medium",), "the model has no such switch", "say it in a message"),
    "web_search_options": none("nothing is searched", "send tools"),
    "media_io_kwargs": none("messages are text"),
    "mm_processor_kwargs": none("messages are text"),
    "reasoning": none("it is of another endpoint", "send reasoning_effort"),
    "reasoning_format": Neutral(
        ("auto",), "it has another name here", "send separate_reasoning: true or false"
    ),
    "reasoning_in_content": Neutral(
        (False,), "it has another name here", "send separate_reasoning: false"
    ),
    "thinking_budget_tokens": Neutral(
        (-1,), "it has another name here", "send max_thinking_tokens"
    ),
    "reasoning_budget_tokens": Neutral(
        (-1,), "it has another name here", "send max_thinking_tokens"
    ),
    "thinking_forced_open": Neutral((False,), "the chat template opens a trace, or does not"),
    "enable_thinking": none(
        "it has another name here", "send chat_template_kwargs.enable_thinking"
    ),
    "thinking": none("it has another name here", "send reasoning_effort"),
    "think": none("it has another name here", "send reasoning_effort"),
    "num_ctx": none("a context is as long as the engine was built for"),
    "num_predict": none("it has another name here", "send max_tokens"),
    "keep_alive": none("the model stays loaded"),
    "generation_prompt": Neutral(("",), "the chat template writes it"),
    "parse_tool_calls": Neutral((True,), "calls are read where there are tools"),
}
COMPLETION: Table = {
    **EITHER,
    "suffix": Neutral(("",), "nothing is filled in between", "send what stands before as prompt"),
    "prompt_embeds": none("prompts are text or ids", "send prompt"),
    "max_completion_tokens": none("it is of chats", "send max_tokens"),
    "chat_template_kwargs": none("there is no chat template", "use /v1/chat/completions"),
    "messages": none("there is no chat template", "use /v1/chat/completions"),
}
# Of a message: what an answer of the OpenAI SDK, of litellm or of vLLM has when it is handed back.
MESSAGE: Table = {
    "annotations": Neutral(([],), "the model is not shown them"),
    "audio": Neutral(({},), "messages are text"),
    "refusal": Neutral(("",), "the model is not shown it", "send it as content"),
}
STRUCTURED_OUTPUTS: Table = {
    "disable_fallback": Neutral((False, True), "there is one backend, and no fallback"),
    "disable_any_whitespace": Neutral((False,), "JSON has the white space that it has"),
    "disable_additional_properties": Neutral((False,), "a schema says so itself"),
}


def without_neutral(body: Json, table: Table) -> Json:
    """Return the fields of a body that say something."""
    return {
        name: value
        for name, value in body.items()
        if value is not None and not _is_neutral(table.get(name), value, body)
    }


def describe(schema: Json, table: Table) -> None:
    """Add to a JSON schema what is taken beside its own fields."""
    properties = schema.setdefault("properties", {})
    for name, value in properties.items():
        if name not in schema.get("required", ()) and not _takes_null(value):
            default = {"default": value.pop("default")} if "default" in value else {}
            properties[name] = {"anyOf": [value, {"type": "null"}], **default}
    for name, neutral in table.items():
        why = f"Not supported; these values change nothing: {neutral.why}."
        properties[name] = {"enum": [*neutral.values, None], "description": why}


def _is_neutral(neutral: Neutral | None, value: Any, body: Json) -> bool:
    if neutral is None:
        return False
    other = () if neutral.same_as is None else (body.get(neutral.same_as),)
    return any(_same(value, one) for one in (*neutral.values, *other))


def _same(left: Any, right: Any) -> bool:
    """Whether two JSON values are the same; true is not 1."""
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _takes_null(schema: Json) -> bool:
    return any(option.get("type") == "null" for option in (schema, *schema.get("anyOf", ())))
