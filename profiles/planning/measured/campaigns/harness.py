"""How a campaign's load generator and servers were set, where its own scripts say so.

A row states two lengths and a number of users. Whether every request has those lengths, and how
many tokens a call takes, decides how long users wait for each other's prompts.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Harness:
    """What a campaign's rows have in common; a stated length is the longest of a request."""

    shortest_share: float = 1.0  # lengths are drawn evenly between this share of them, and them
    max_num_tokens: int | None = None  # new tokens in one call; None: the engine's own
    # Decode steps whose tokens a server hands out together: the first one waits for the others.
    stream_interval: int = 1
    # Whether prompts share their calls with tokens of others; None: as the engine does by default.
    mixes_prompts: bool | None = None


PLAIN = Harness()
INFERENCE_MAX = "source_file=2026-04-06.csv"
# RANDOM_RANGE_RATIO 0.8, and --max-num-batched-tokens 8192 of its vLLM servers.
# Source: README.md of InferenceMAX, jyothisambolu/InferenceMAX@01de548 (2025-08).
INFERENCE_MAX_SHARE, INFERENCE_MAX_VLLM_TOKENS = 0.8, 8192
# Source: `stream_interval: 20` in its TensorRT-LLM scripts. Which rows it holds for is inferred:
# those of 1024 and 1024 tokens on 1 to 4 GPUs wait 20 decode steps longer than all others.
INFERENCE_MAX_INTERVAL = 20


# aiconfigurator launches what it measures by rules of its own. SGLang shares calls between prompts
# and tokens, but for 0.5.1, where the rule's name for that is not the template's. A call takes
# prompts until they are over `isl + 1500` tokens, but no more than chunked_prefill_size.
# TensorRT-LLM takes `max_batch_size + isl + 1500`; users are taken for the batch.
# Source: generator/rule_plugin/benchmark/{sglang,trtllm}.rule, config/backend_templates/
# {sglang/cli_args.*,trtllm/extra_engine_args.1.0.0rc3}.j2 of ai-dynamo/aiconfigurator@043c66c,
# @581e459; PrefillAdder.budget_state of SGLang (managers/schedule_policy.py). They are of 2026, and
# a row does not say which commit it was measured with.
AICONFIGURATOR = "aiconfigurator"
MORE_TOKENS, SGLANG_CHUNK = 1500, 8192


@dataclass(frozen=True, slots=True)
class Setup:
    """What a row says of how it was measured."""

    source: str
    notes: str
    engine: str
    version: str
    lengths: tuple[int | None, int | None]
    concurrency: int | None
    tp: int


def harness_of(setup: Setup) -> Harness:
    """Return the settings of a row's campaign; the plain ones where nothing is known of it."""
    if INFERENCE_MAX in setup.notes:
        return _inference_max(setup)
    isl, users = setup.lengths[0], setup.concurrency
    if not setup.source.startswith(AICONFIGURATOR) or isl is None or users is None:
        return PLAIN
    if setup.engine == "sglang" and setup.version.startswith("0.5.6"):
        prompts = -(-(isl + MORE_TOKENS) // isl)
        return Harness(max_num_tokens=min(prompts * isl, SGLANG_CHUNK), mixes_prompts=True)
    if setup.engine == "tensorrt-llm-1.0rc" and setup.version.startswith("1.0.0rc"):
        return Harness(max_num_tokens=users + isl + MORE_TOKENS)
    return PLAIN


def _inference_max(setup: Setup) -> Harness:
    """Return the settings of InferenceMAX's scripts."""
    if setup.engine == "vllm":
        return Harness(INFERENCE_MAX_SHARE, INFERENCE_MAX_VLLM_TOKENS)
    is_held_back = setup.lengths == (1024, 1024) and setup.tp < 8
    return Harness(
        INFERENCE_MAX_SHARE, stream_interval=INFERENCE_MAX_INTERVAL if is_held_back else 1
    )
