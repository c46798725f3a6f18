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
    # Standard deviations of prompts and answers as shares of the stated lengths, then means.
    spreads: tuple[float, float] = (0.0, 0.0)
    # Decode steps for which a prompt waits that others may join it.
    batch_wait_steps: int = 0
    # Whether prompts share their calls with tokens of others; None: as the engine does by default.
    mixes_prompts: bool | None = None
    splits_prompts: bool = True  # whether a call may take a part of a prompt
    # Prompts that its load generator sends again and again, to a server that keeps them; None: each
    # prompt is new, or nothing is kept.
    num_prompts: int | None = None
    prompt_call_ms: float = 0.0  # of calls with prompts, for each doubling of the GPUs
    attention_8bit_factor: float = (
        1.0  # of the bandwidth that attention reaches with a 16-bit cache
    )
    reserve_mib: int | None = None  # that a server leaves to calls; None: as a plan does
    has_16_bit_kv: bool = False  # whether an FP8 checkpoint's cache stays in 16 bits

    def kept_share(self, users: int) -> float:
        """Return the share of the measured requests whose prompt was sent before."""
        new = max((self.num_prompts or 0) - AIPERF_WARM_UP * users, 0)
        return max(1 - new / (AIPERF_ROUNDS * users), 0.0)


PLAIN = Harness()
INFERENCE_MAX = "source_file=2026-04-06.csv"
# RANDOM_RANGE_RATIO 0.8, ten requests a user, --max-num-batched-tokens 8192 of its vLLM servers,
# --max_num_tokens 16384 of trtllm-serve, which takes whole prompts unless told otherwise.
# Source: README.md and benchmarks/70b_fp8_*.sh of jyothisambolu/InferenceMAX@86d696c (2025-10).
INFERENCE_MAX_SHARE, INFERENCE_MAX_VLLM_TOKENS = 0.8, 8192
INFERENCE_MAX_TRTLLM_TOKENS = 16384
# Source: `batch_wait_timeout_iters: 20` of the same, for 1024 and 1024 tokens below 8 GPUs.
INFERENCE_MAX_WAIT = 20
# Its B200 servers of vLLM capture CUDA graphs of decode steps alone (`cudagraph_mode:
# FULL_DECODE_ONLY`, 70b_fp8_b200_docker.sh). What its calls with prompts then take more, for each
# doubling of the GPUs, whose ranks wait for each other: fitted to its 16 calibration rows.
INFERENCE_MAX_PROMPT_CALL_MS = 20.0
# Decode attention of vLLM then was no faster with an 8-bit cache than with a 16-bit one on Hopper.
# Source: vllm-project/flash-attention#96 (2025-09-29).
EARLY_HOPPER_8BIT_KV = 0.5


# llmperf draws lengths around their means: 550 by 150 tokens, and 150 by 10.
# Source: README.md of ray-project/llmperf, the example with these means.
LLMPERF, LLMPERF_SPREADS = "llmperf", (150 / 550, 10 / 150)
# vLLM 0.4.3 takes prompts first, and apart, unless told otherwise.
# Source: SchedulerConfig.chunked_prefill_enabled of vllm/config.py@v0.4.3.

# aiconfigurator launches what it measures by rules of its own. SGLang shares calls between prompts
# and tokens, but for 0.5.1, where the rule's name for that is not the template's. A call takes
# prompts until they are over `isl + 1500` tokens, but no more than chunked_prefill_size.
# TensorRT-LLM and vLLM take `max_batch_size + isl + 1500`; users are taken for the batch. The
# template of TensorRT-LLM 1.0.0rc3 leaves chunked prefill off: a call takes whole prompts.
# Source: generator/rule_plugin/benchmark/{sglang,trtllm,vllm}.rule, config/backend_templates/
# {sglang/cli_args.*,trtllm/extra_engine_args.1.0.0rc3,vllm/cli_args.0.12.0}.j2 of
# ai-dynamo/aiconfigurator@043c66c, @581e459; PrefillAdder.budget_state of SGLang
# (managers/schedule_policy.py). They are of 2026, and a row does not say which commit it was
# measured with.
AICONFIGURATOR = "aiconfigurator"
MORE_TOKENS, SGLANG_CHUNK = 1500, 8192
# Of its two load generators one sends 12 prompts a user, each once (eval/benchmarks/
# genai_perf_runner.py@bc171bc, of 2025). The other leaves AIPerf's 100 prompts, which are sent
# again until 20 rounds are over, after 2 of warm-up (backend_templates/benchmark/
# bench_run.sh.j2@095f58a; --num-dataset-entries of ai-dynamo/aiperf@db4f639, docs/cli_options.md);
# vLLM keeps prompts unless told otherwise. That its FP8 rows of vLLM 0.12.0 come of the second is
# inferred: some are faster than the datasheet allows with new prompts. Its caches have 16 bits, as
# vLLM followed kv_cache_quant_algo only from vllm-project/vllm#29980 on, after 0.12.0.
AIPERF_PROMPTS, AIPERF_ROUNDS, AIPERF_WARM_UP = 100, 20, 2


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
    is_fp8: bool
    gpu: str


def harness_of(setup: Setup) -> Harness:
    """Return the settings of a row's campaign; the plain ones where nothing is known of it."""
    if INFERENCE_MAX in setup.notes:
        return _inference_max(setup)
    isl, users = setup.lengths[0], setup.concurrency
    if LLMPERF in setup.source:
        if setup.engine != "vllm":
            return Harness(spreads=LLMPERF_SPREADS)
        return Harness(spreads=LLMPERF_SPREADS, mixes_prompts=False)
    if not setup.source.startswith(AICONFIGURATOR) or isl is None or users is None:
        return PLAIN
    if setup.engine == "sglang" and setup.version.startswith("0.5.6"):
        prompts = -(-(isl + MORE_TOKENS) // isl)
        return Harness(
            max_num_tokens=min(prompts * isl, SGLANG_CHUNK),
            mixes_prompts=True,
            reserve_mib=sglang_reserve_mib(setup.tp),
        )
    if setup.engine == "sglang" and setup.version.startswith("0.5.8"):
        return Harness(reserve_mib=sglang_reserve_mib(setup.tp))
    if setup.engine == "tensorrt-llm-1.0rc" and setup.version.startswith("1.0.0rc"):
        return Harness(max_num_tokens=users + isl + MORE_TOKENS, splits_prompts=False)
    if setup.engine == "vllm" and setup.version.startswith("0.12"):
        return Harness(
            max_num_tokens=users + isl + MORE_TOKENS,
            num_prompts=AIPERF_PROMPTS if setup.is_fp8 else None,
            has_16_bit_kv=True,
        )
    return PLAIN


def sglang_reserve_mib(tp: int) -> int:
    """Return what SGLang leaves free of a GPU of 60 to 160 GB for calls in chunks of 8192 tokens.

    Source: ServerArgs._handle_gpu_memory_settings, by sgl-project/sglang#10975 (after 0.5.1): 512,
    1.5 a token of a chunk, 2 for each sequence of the largest CUDA graph, 128 a GPU.
    """
    largest_graph = 256 if tp < 4 else 512
    return max(512 + SGLANG_CHUNK * 3 // 2 + 2 * largest_graph + 128 * tp, 10 * 1024)


def _inference_max(setup: Setup) -> Harness:
    """Return the settings of InferenceMAX's scripts."""
    if setup.engine == "vllm":
        more_ms = INFERENCE_MAX_PROMPT_CALL_MS if setup.gpu.startswith("B200") else 0.0
        tokens = INFERENCE_MAX_VLLM_TOKENS
        is_hopper = setup.gpu.startswith(("H100", "H200"))
        share = EARLY_HOPPER_8BIT_KV if is_hopper else 1.0
        return Harness(
            INFERENCE_MAX_SHARE, tokens, prompt_call_ms=more_ms, attention_8bit_factor=share
        )
    waits = setup.lengths == (1024, 1024) and setup.tp < 8
    return Harness(
        INFERENCE_MAX_SHARE,
        INFERENCE_MAX_TRTLLM_TOKENS,
        batch_wait_steps=INFERENCE_MAX_WAIT if waits else 0,
        splits_prompts=False,
    )
