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


PLAIN = Harness()
INFERENCE_MAX = "source_file=2026-04-06.csv"
# RANDOM_RANGE_RATIO 0.8, and --max-num-batched-tokens 8192 of its vLLM servers.
# Source: README.md of InferenceMAX, jyothisambolu/InferenceMAX@01de548 (2025-08).
INFERENCE_MAX_SHARE, INFERENCE_MAX_VLLM_TOKENS = 0.8, 8192
# Source: `stream_interval: 20` in its TensorRT-LLM scripts. Which rows it holds for is inferred:
# those of 1024 and 1024 tokens on 1 to 4 GPUs wait 20 decode steps longer than all others.
INFERENCE_MAX_INTERVAL = 20


def harness_of(notes: str, engine: str, lengths: tuple[int | None, int | None], tp: int) -> Harness:
    """Return the settings of a row's campaign; the plain ones where nothing is known of it."""
    if INFERENCE_MAX not in notes:
        return PLAIN
    if engine == "vllm":
        return Harness(INFERENCE_MAX_SHARE, INFERENCE_MAX_VLLM_TOKENS)
    is_held_back = lengths == (1024, 1024) and tp < 8
    return Harness(
        INFERENCE_MAX_SHARE, stream_interval=INFERENCE_MAX_INTERVAL if is_held_back else 1
    )
