"""The sampler's kernels against the CPU's sampler: every token is the same, whatever the launch."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np

from nemotrt.build.check.kernels.device import copy_us, put
from nemotrt.build.check.kernels.sampler_cases import CARD, REAL, SETTINGS, Logits, likely
from nemotrt.build.check.result.rows import Comparison, KernelRow, Timing
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary
from nemotrt.engines.backends.tensorrt.draws.draws import CHOOSE_WARPS, SLICE_WARPS, DeviceDraws
from nemotrt.engines.runtime.sampling.draws import CompiledDraws, Turn
from nemotrt.engines.runtime.sampling.guide import FREE, Allowed, Forced, Rule
from nemotrt.engines.runtime.sampling.params import SamplingParams

CHOICE = "draws"  # edit_logits, weigh_scores, choose_tokens, as a step launches them
WHY = "tokens: weights have the CPU's bits, and masses are summed as integers"
WHY_FED = "ids: the tokens that were chosen"
NUM_STEPS = 4  # of one case that is compared
TIMED_STEPS, COMPARED_STEPS = 20, 2
BATCHES = (1, 8, 32, 128)
MASKS = "masks"
TIMED: dict[str, dict[str, Any]] = {
    name: SETTINGS[name] for name in ("greedy", "card", "top_k", "min_p", "penalties")
} | {"logprobs 5": CARD | {"logprobs": 5}, MASKS: CARD}
KINDS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Logits]] = {
    "likely": lambda random, shape: likely(random, shape[1], shape[0]),
    "flat": lambda random, shape: random.normal(size=shape).astype(np.float32),
    "equal": lambda random, shape: np.zeros(shape, np.float32),
}


@dataclass(frozen=True, slots=True)
class DrawCase:
    """Logits of a kind and a size, and how wide the kernels' blocks are."""

    size: int
    kind: str
    slice_warps: int = SLICE_WARPS
    choose_warps: int = CHOOSE_WARPS


CASES = (
    *(DrawCase(size, kind) for size in (300, REAL) for kind in KINDS),
    *(DrawCase(151_936, kind, 3, 7) for kind in KINDS),
    DrawCase(REAL, "likely", 1, 1),
)


def check_draws(cuda: Cuda, library: KernelLibrary, case: DrawCase) -> list[KernelRow]:
    """Return how many tokens are not the CPU's, of all settings side by side."""
    num_rows = NUM_STEPS * len(SETTINGS)
    rows = KINDS[case.kind](np.random.default_rng(2), (num_rows, case.size))
    draws = DeviceDraws(
        cuda,
        library,
        case.size,
        len(SETTINGS),
        slice_warps=case.slice_warps,
        choose_warps=case.choose_warps,
    )
    others, fed = differing_tokens(cuda, draws, put(cuda, rows), rows)
    name = f"{case.size} {case.kind}"
    row = partial(KernelRow, case=name, sequences=len(SETTINGS), tokens=1)
    return [
        row(CHOICE, comparisons=(Comparison("tokens", others, 0, WHY),)),
        row("feed_tokens", comparisons=(Comparison("ids", fed, 0, WHY_FED),)),
    ]


def differing_tokens(
    cuda: Cuda, draws: DeviceDraws, logits: int, rows: Logits
) -> tuple[float, float]:
    """Return how many choices are not the CPU's, and how many fed ids are not the chosen tokens.

    Args:
        cuda: the device.
        draws: with a slot for each of SETTINGS.
        logits: where `rows` are on the device.
        rows: [steps * slots, vocab].
    """
    size, random, others, fed = rows.shape[1], np.random.default_rng(6), 0, 0
    cpu = CompiledDraws(size, 1)
    params = [
        SamplingParams(seed=i, max_tokens=99, **kind) for i, kind in enumerate(SETTINGS.values())
    ]
    mine = [draws.open(i, each, (1, 2, 2), (0, 4)) for i, each in enumerate(params)]
    theirs = [cpu.open(each, (1, 2, 2), (0, 4)) for each in params]
    by_step = rows.reshape(-1, len(params), size)
    ids_at, ids = (
        put(cuda, np.zeros(len(params), np.int64)),
        cuda.host_array((len(params),), np.int64),
    )
    for step, step_rows in enumerate(by_step):
        masks = [allowed(random, size, share) for share in (0.02, 0.5, 0.98)]
        rules = random.choice(np.array([FREE, FREE, Forced(3), *masks], object), len(params))
        order = random.permutation(len(params)).tolist()
        turns = [Turn(i, mine[i], rules[i]) for i in order]
        draws.choose(logits + step * int(step_rows.nbytes), turns)
        draws.feed(ids_at, order)
        cuda.to_host(ids, ids_at)
        expected = cpu.choose(step_rows, [Turn(i, theirs[i], rules[i]) for i in order])
        found = draws.chosen()
        cuda.synchronize()
        others += sum(one != other for one, other in zip(found, expected, strict=True))
        fed += sum(
            one is not None and one.token != token
            for one, token in zip(found, ids.tolist(), strict=True)
        )
    return others, fed


def allowed(random: np.random.Generator, size: int, share: float) -> Allowed:
    """Return a mask of that share of the tokens."""
    return Allowed(np.less(random.random(size), share))


def time_draws(cuda: Cuda, library: KernelLibrary, batch: int) -> list[KernelRow]:
    """Return a row for each of TIMED: a whole step at the real vocabulary, copies and host too."""
    draws = DeviceDraws(cuda, library, REAL, batch)
    rows = likely(np.random.default_rng(0), REAL, batch)
    logits = put(cuda, rows)
    of_copy = copy_us(cuda, 2 * rows.nbytes)
    found = []
    for name in TIMED:
        seconds, others = _steps(draws, logits, rows, name)
        timing = Timing(seconds * 1e6, of_copy, 2 * rows.nbytes)
        compared = (Comparison("tokens", others, 0, WHY),)
        found.append(KernelRow(CHOICE, name, batch, 1, compared, timing))
    return found


def _steps(draws: DeviceDraws, logits: int, rows: Logits, name: str) -> tuple[float, float]:
    """Return the median seconds of a step, and how many of the first tokens are not the CPU's."""
    batch, cpu = len(rows), CompiledDraws(rows.shape[1], 2)
    params = [SamplingParams(seed=i, max_tokens=1 << 20, **TIMED[name]) for i in range(batch)]
    mine = [draws.open(i, each, (1, 2), ()) for i, each in enumerate(params)]
    theirs = [cpu.open(each, (1, 2), ()) for each in params]
    random = np.random.default_rng(1)
    sets: list[list[Rule]] = [
        [allowed(random, rows.shape[1], 0.01) if name == MASKS else FREE for _ in rows]
        for _ in range(2)
    ]
    steps, others = [], 0
    for step in range(TIMED_STEPS):
        rules = sets[step % 2]
        turns = [Turn(i, draw, rules[i]) for i, draw in enumerate(mine)]
        start_s = time.perf_counter()
        draws.choose(logits, turns)
        found = draws.chosen()
        steps.append(time.perf_counter() - start_s)
        if step < COMPARED_STEPS:
            expected = cpu.choose(rows, [Turn(i, draw, rules[i]) for i, draw in enumerate(theirs)])
            others += sum(one != other for one, other in zip(found, expected, strict=True))
    return median(steps), others
