"""Each field of other servers' documents is taken, taken where it changes nothing, or refused.

The lists are other people's; that they are complete here is what the tests are for.
"""

import json
import re
import typing
from typing import Any

import pytest
from openai.types import completion_create_params as openai_completion
from openai.types.chat import completion_create_params as openai_chat
from openai.types.responses import response_create_params as openai_response

from nemotrt.serve.front.doors.prepare import prepare
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.front.openai.prepare import CallSettings
from nemotrt.serve.front.schema.anthropic import MessagesRequest
from nemotrt.serve.front.schema.requests import ChatRequest, CompletionRequest
from nemotrt.serve.front.schema.responses import ResponsesRequest
from nemotrt.serve.requests.endpoints import Endpoint
from support.saying_upstream import FILES

SETTINGS = CallSettings(("llm",), FILES, separate_reasoning=True)
BODIES: dict[Any, dict[str, Any]] = {
    ChatRequest: {"model": "llm", "messages": [{"role": "user", "content": "Hi"}]},
    CompletionRequest: {"model": "llm", "prompt": "Hi"},
    ResponsesRequest: {"model": "llm", "input": "Hi"},
    MessagesRequest: {"max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]},
}


def names(text: str) -> list[str]:
    return text.split()


# Source: vLLM, vllm/entrypoints/openai/{chat_completion,completion}/protocol.py, 2026-11; those
# beside OpenAI's.
VLLM = names("""use_beam_search top_k min_p repetition_penalty watermarking length_penalty
    stop_token_ids include_stop_str_in_output ignore_eos min_tokens skip_special_tokens
    spaces_between_special_tokens truncate_prompt_tokens truncation_side prompt_logprobs
    logprob_token_ids allowed_token_ids bad_words add_special_tokens structured_outputs priority
    request_id session_id return_tokens_as_token_ids return_token_ids routed_experts_prompt_start
    return_token_offsets return_mm_kwargs cache_salt kv_transfer_params ec_transfer_params
    vllm_xargs repetition_detection thinking_token_budget stream_interval""")
VLLM_CHAT = names("""echo add_generation_prompt continue_final_message documents chat_template
    chat_template_kwargs media_io_kwargs mm_processor_kwargs return_prompt_text
    include_reasoning reasoning_effort""")
VLLM_OLDER = names("guided_json guided_regex guided_choice guided_grammar")
# Source: llama.cpp, tools/server/server-schema.cpp and tools/server/README.md, 2026-11.
LLAMA_CPP = names("""verbose timings_per_token stream stream_options cache_prompt return_tokens
    return_progress sse_ping_interval n_predict n_indent n_keep n_discard n_cmpl n_cache_reuse
    t_max_predict_ms response_fields top_k top_p min_p top_n_sigma xtc_probability xtc_threshold
    typical_p temperature dynatemp_range dynatemp_exponent repeat_last_n repeat_penalty
    frequency_penalty presence_penalty dry_multiplier dry_base dry_allowed_length
    dry_penalty_last_n dry_sequence_breakers mirostat mirostat_tau mirostat_eta adaptive_target
    adaptive_decay seed n_probs min_keep backend_sampling post_sampling_probs lora json_schema
    grammar grammar_lazy samplers ignore_eos logit_bias stop id_slot image_data""")
LLAMA_CPP_CHAT = names("""reasoning_format reasoning_in_content thinking_forced_open
    parse_tool_calls generation_prompt parallel_tool_calls chat_template_kwargs reasoning_effort""")
# Source: anthropic 2.10.0, types/message_create_params.py and types/beta/message_create_params.py.
ANTHROPIC = names("""betas billing_policy cache_control compaction container context_management
    diagnostics fallback_credit_token fallbacks inference_geo max_tokens mcp_servers messages
    metadata model output_config service_tier speed stop_sequences stream system temperature
    thinking thread tool_choice tools top_k top_p user_profile_id workspace_id""")
ENDPOINTS = {
    ChatRequest: Endpoint.CHAT,
    CompletionRequest: Endpoint.COMPLETIONS,
    ResponsesRequest: Endpoint.RESPONSES,
    MessagesRequest: Endpoint.MESSAGES,
}
KNOWN = {
    ChatRequest: {
        *typing.get_type_hints(openai_chat.CompletionCreateParamsStreaming),
        *VLLM,
        *VLLM_CHAT,
        *VLLM_OLDER,
        *LLAMA_CPP,
        *LLAMA_CPP_CHAT,
    },
    CompletionRequest: {
        *typing.get_type_hints(openai_completion.CompletionCreateParamsStreaming),
        *VLLM,
        "prompt_embeds",
        "response_format",
        *VLLM_OLDER,
        *LLAMA_CPP,
    },
    ResponsesRequest: set(typing.get_type_hints(openai_response.ResponseCreateParamsStreaming)),
    MessagesRequest: set(ANTHROPIC),
}
FIELDS = [(kind, name) for kind, names in KNOWN.items() for name in sorted(names)]
TABLES = [(kind, name) for kind in BODIES for name in kind.neutral]
HEADER = "X-Request-Id"


def refusal(kind: Any, **fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        prepare(ENDPOINTS[kind], json.dumps({**BODIES[kind], **fields}).encode(), SETTINGS)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_field_that_is_documented_elsewhere_is_taken_or_refused_with_a_reason(kind, name) -> None:
    assert name in kind.model_fields or name in kind.neutral


@pytest.mark.parametrize(("kind", "name"), TABLES)
def test_another_value_is_refused_by_name_with_the_reason_and_what_works(kind, name) -> None:
    assert name not in kind.model_fields
    error, told = refusal(kind, **{name: {"another": "value"}}), kind.neutral[name]
    assert error.param == name
    assert error.message == f"{name} is not supported: {told.why}; {told.instead}."
    for field in re.findall(r"\bsend ([A-Za-z-]*[_-][\w-]+)", told.instead):
        assert field in kind.model_fields or field == HEADER, f"{field} is no help"


@pytest.mark.parametrize("kind", BODIES)
def test_an_unknown_field_is_refused_by_name_alone(kind) -> None:
    error = refusal(kind, nonsense=1)
    assert (error.param, error.message) == ("nonsense", "nonsense is not supported; leave it out.")
