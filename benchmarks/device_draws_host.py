"""How long choosing a step's tokens takes on this machine's GPU, at the real vocabulary.

usage: python benchmarks/device_draws_host.py    # on a GPU host; not executed by its authors

"enqueued" is the host's time for a step's copies and launches; "step" is the time from there until
the host has the tokens, the GPU's own and the copy back. First the tokens are compared with the
CPU's sampler; nothing is timed where one differs.
"""

import time
from statistics import median
from typing import Any

import numpy as np

from nemotrt.engines.backends.tensorrt.device.cuda import Cuda, cuda_api
from nemotrt.engines.backends.tensorrt.draws.draws import DeviceDraws
from nemotrt.engines.backends.tensorrt.draws.library import open_sampler_library
from nemotrt.engines.runtime.sampling.draws import CompiledDraws, Turn
from nemotrt.engines.runtime.sampling.guide import FREE, Allowed, Rule
from nemotrt.engines.runtime.sampling.params import SamplingParams

VOCAB = 131_072  # Nemotron-Nano-9B-v2's vocabulary
BATCHES = (1, 8, 32, 128)
STEPS = 50
CARD: dict[str, Any] = {"temperature": 0.6, "top_p": 0.95}  # Source: model card
SETTINGS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "card": CARD,
    "top-k": {"temperature": 0.8, "top_k": 50},
    "min-p": {"temperature": 1.0, "min_p": 0.05},
    "penalties": CARD | {"repetition_penalty": 1.1, "frequency_penalty": 0.5},
    "logprobs 5": CARD | {"logprobs": 5},
    "masks": CARD,
}


def logits(num_rows: int) -> np.ndarray:
    """Return rows as a language model's: a broad bulk, and some that stand out."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(num_rows, VOCAB)) * 2.2
    for row in rows:
        some = random.choice(VOCAB, VOCAB // 500, replace=False)
        row[some] += random.exponential(4, some.size)
    return rows.astype(np.float32)


def rules(name: str, batch: int) -> list[Rule]:
    """Return a rule a sequence: each a mask of its own, uploaded in each step, or none."""
    if name != "masks":
        return [FREE] * batch
    random = np.random.default_rng(1)
    return [Allowed(random.random(VOCAB) < 0.01) for _ in range(batch)]


def run(
    draws: DeviceDraws, at: int, rows: np.ndarray, name: str, batch: int
) -> tuple[float, float]:
    """Return the median seconds of enqueueing, and of a step."""
    params = [SamplingParams(seed=i, max_tokens=1 << 20, **SETTINGS[name]) for i in range(batch)]
    cpu = CompiledDraws(VOCAB, 2)
    mine = [draws.open(i, each, (1, 2), ()) for i, each in enumerate(params)]
    theirs = [cpu.open(each, (1, 2), ()) for each in params]
    sets = [rules(name, batch) for _ in range(2)]
    enqueued, steps = [], []
    for step in range(STEPS):
        chosen = sets[step % 2]
        turns = [Turn(i, draw, chosen[i]) for i, draw in enumerate(mine)]
        start = time.perf_counter()
        draws.choose(at, turns)
        middle = time.perf_counter()
        found = draws.chosen()
        steps.append(time.perf_counter() - start)
        enqueued.append(middle - start)
        if step < 5:
            turns = [Turn(i, draw, chosen[i]) for i, draw in enumerate(theirs)]
            if found != cpu.choose(rows, turns):
                raise SystemExit(f"{name}, batch {batch}: the GPU's tokens are not the CPU's.")
    return median(enqueued), median(steps)


def main() -> None:
    """Print the table."""
    cuda = Cuda(cuda_api())
    library = open_sampler_library(cuda.compute_capability)
    draws = DeviceDraws(cuda, library, VOCAB, max(BATCHES))
    rows = cuda.host_array((max(BATCHES), VOCAB), np.float32)
    rows[...] = logits(max(BATCHES))
    at = cuda.allocate(rows.nbytes).address
    cuda.to_device(at, rows)
    cuda.synchronize()
    print(f"compute capability {cuda.compute_capability}; microseconds a step")
    print(f"{'settings':12} {'sequences':>9} {'enqueued':>9} {'step':>9}")
    for name in SETTINGS:
        for batch in BATCHES:
            enqueued_s, step_s = run(draws, at, rows[:batch], name, batch)
            print(f"{name:12} {batch:9} {enqueued_s * 1e6:9.1f} {step_s * 1e6:9.1f}")
    cuda.close()


if __name__ == "__main__":
    main()
