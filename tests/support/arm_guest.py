"""What test_arm.py runs on ARM: `python arm_guest.py FOLDER`, of engines and a sampler's rows.

Writes FOLDER/CPU.npz: of each engine and instruction set the logits, which here are the same bits
however the prompt is cut and on any number of threads; and the tokens that were drawn.
"""

import os
import sys
from pathlib import Path

import numpy as np

from nemotrt.build.check.kernels.sampler_cases import SETTINGS
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.backends.native.library.library import InstructionSet, available_isas
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.sampling.draws import CompiledDraws, Turn
from nemotrt.engines.runtime.sampling.guide import FREE
from nemotrt.engines.runtime.sampling.params import SamplingParams

LIMITS = Limits(max_batch_size=3, max_seq_len=128, chunk_tokens=32)
TOKENS = np.random.default_rng(0).integers(3, 96, 48).tolist()
CUTS = ((1, [32, 16]), (2, [7, 6, 5, 4, 3, 2, 1, 1, 1, 12, 6]))  # threads, and tokens of each step


def logits(folder: Path, isa: InstructionSet, threads: int, cuts: list[int]) -> np.ndarray:
    """Return the logits of every token; another sequence keeps it company in the second way."""
    engine = NativeEngine(folder, LIMITS, threads, isa)
    slot, other, done, rows = engine.allocate(), engine.allocate(), 0, []
    for size in cuts:
        feeds = [Feed(slot, TOKENS[done : done + size], size)]
        if threads > 1:
            feeds.insert(0, Feed(other, TOKENS[done // 2 : done // 2 + 3]))
        rows.append(engine.step(feeds)[-size:].copy())
        done += size
    engine.close()
    return np.concatenate(rows)


def drawn(rows: np.ndarray, isa: InstructionSet) -> np.ndarray:
    """Return the tokens that each setting draws from the rows."""
    found = []
    for name in SETTINGS:
        draws = CompiledDraws(rows.shape[1], 1, isa=isa)
        memory = draws.open(
            SamplingParams(max_tokens=len(rows), seed=5, **SETTINGS[name]), (1,), ()
        )
        chosen = [draws.choose(row[None], [Turn(0, memory, FREE)])[0] for row in rows]
        found.append([one.token for one in chosen if one is not None])
    return np.array(found)


def main(folder: Path) -> None:
    """Run every engine on every set that is here."""
    results, scores = {}, np.load(folder / "rows.npy")
    for isa in available_isas():
        results[f"tokens.{isa.name}"] = drawn(scores, isa)
        for engine in sorted(folder.glob("engine-*")):
            first, *others = [logits(engine, isa, *how) for how in CUTS]
            for other in others:
                np.testing.assert_array_equal(other, first)
            results[f"{engine.name}.{isa.name}"] = first
    np.savez(folder / f"{os.environ.get('QEMU_CPU', 'host')}.npz", **results)
    print(*(isa.name for isa in available_isas()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
