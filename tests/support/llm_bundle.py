"""What the tests of a TensorRT-LLM bundle ask for."""

from typing import Any

from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.opening import OpenEngine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.sampling.thinking_budget import ThinkingBudget
from nemotrt.engines.runtime.scheduling.generation import collect, generate

LIMITS = Limits(max_batch_size=3, max_seq_len=96, chunk_tokens=16)
PROMPT = (1, 700, 23, 1999, 4)
SHORT = SamplingParams(max_tokens=4)
BUDGET = ThinkingBudget(DEFAULT, 1, lambda text: [5])


def run(opened: OpenEngine, **params: Any) -> dict[str, Any]:
    return collect(list(generate(opened.scheduler(), PROMPT, SamplingParams(**params))), 5)


def some_text(cpu: OpenEngine) -> str:
    return str(run(cpu, max_tokens=40, ignore_eos=True)["text"])
