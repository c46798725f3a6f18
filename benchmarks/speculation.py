"""Tokens a second with guesses and without, on texts that repeat and on texts that do not.

Run: python benchmarks/speculation.py [--models mid,wide] [--rounds 3] [--batches 1,8]

Random weights repeat nothing, so each answer is a given text: a guide forces its tokens, one at a
time, and tells nothing of the next ones. The engine computes all it would, the guesses come from
the prompt and the answer so far. Of each text: how many tokens a step yields, and the ratio of
tokens a second with `--speculate auto` and `off`, in turn. `chunk` is what a step takes that looks
at so many tokens of one sequence, over a step of one token.
"""

import json
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import click
from cpu.models import checkpoint

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.sampling.guide import COMPLETE, Forced, Rule
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS

ROOT = Path(__file__).resolve().parents[1]
LIMITS = Limits(max_batch_size=8, max_seq_len=4096, chunk_tokens=256)
CHUNKS = (2, 4, 8, 16)
MAX_TOKENS = 700  # of an answer


@dataclass(frozen=True)
class Case:
    """A prompt, and the text that is said to it."""

    name: str
    prompt: str
    answer: str


def cases() -> list[Case]:
    """Return tool calls, a code edit, a summary with quotes, and prose about something else."""
    labels = json.loads((ROOT / "serve/front/page/texts/en.json").read_text())
    records = [{"key": key, "text": text} for key, text in labels.items() if isinstance(text, str)]
    calls = [{"name": "set_text", "arguments": record} for record in records[:14]]
    schema = {"name": "set_text", "parameters": {"properties": {"key": {}, "text": {}}}}
    tools = f"{json.dumps(schema)}\n" + "\n".join(f"{r['key']}: {r['text']}" for r in records)

    code = (ROOT / "engines/runtime/scheduling/line.py").read_text()
    edited = code.replace("_parked", "_put_aside").replace("item", "entry")

    lines = (ROOT / "quantize/calibration/calibration_text.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines][:10]
    said = (
        "The first passage is about a visit at the door, and ends badly for the mail:",
        "On plants it is short and exact:",
        "How long the journey takes is worked out too, in this way:",
        "Instructions follow, of which one matters most:",
        "There is also a proof, as brief as can be:",
        "Of a meeting we hear little good:",
    )
    quotes = [f'{own} "{text.split(". ")[0]}."' for own, text in zip(said, texts, strict=False)]
    return [
        Case("tool calls", tools, "<TOOLCALL>" + json.dumps(calls)),
        Case("code edit", f"Rename two things.\n{code}", f"```python\n{edited}\n```"),
        Case("quotes", "\n".join(texts), "\n".join(quotes)),
        Case("free text", "\n".join(texts), (ROOT / "docs/profiling.md").read_text()),
    ]


class Said:
    """A guide that forces a text's tokens and knows nothing ahead."""

    def __init__(self, tokens: list[int]) -> None:
        """Start before the first."""
        self._tokens, self._num_out = tokens, 0

    def rule(self) -> Rule:
        """Return the next token."""
        at = self._num_out
        return Forced(self._tokens[at]) if at < len(self._tokens) else COMPLETE

    def push(self, token: int, text: str) -> None:
        """Go on."""
        self._num_out += 1


@dataclass(frozen=True)
class Turn:
    """What one run took: tokens a second after the first ones, and tokens a step."""

    tokens_per_s: float
    tokens_per_step: float
    tokens: tuple[int, ...]


def run(folder: Path, case: Case, batch: int, word: str) -> Turn:
    """Return how fast a batch of one text is said."""
    tokenizer = load_tokenizer(TINY_MODELS["tiny"])
    prompt = tuple(tokenizer.encode(case.prompt))[:2000]
    answer = tokenizer.encode(case.answer)[:MAX_TOKENS]
    opened = open_engine(folder, OpenOptions(speculate=word), verify=False)
    scheduler = replace(opened, tokenizer=None, eos_ids=()).scheduler()
    settings = SamplingParams(max_tokens=len(answer), ignore_eos=True)
    for number in range(batch):
        # each batch member has a prompt of its own, and a salt, so that none helps another
        own = (*prompt[number:], *prompt[:number])
        asked = Request(str(number), own, settings, Said(answer), salt=str(number))
        scheduler.submit(asked)
    tokens: list[int] = []
    while len(tokens) < batch:  # the prompts
        tokens += [token.id for update in scheduler.step() for token in update.tokens]
    before, steps, start_s = len(tokens), 0, time.perf_counter()
    while not scheduler.is_idle:
        tokens += [token.id for update in scheduler.step() for token in update.tokens]
        steps += 1
    seconds = time.perf_counter() - start_s
    opened.engine.close()
    new = len(tokens) - before
    return Turn(new / seconds, new / steps / batch, tuple(sorted(tokens)))


def chunk_costs(folder: Path, rounds: int) -> dict[int, float]:
    """Return what a draft of so many tokens takes, all accepted, over a step of one token."""
    opened = open_engine(folder, OpenOptions(speculate=str(max(CHUNKS) - 1)), verify=False)
    engine = opened.engine
    slot = engine.allocate()
    engine.step([Feed(slot, [5] * 200)])
    took: dict[int, list[float]] = {count: [] for count in (1, *CHUNKS)}
    for _ in range(rounds * 4):
        for count, found in took.items():
            start_s = time.perf_counter()
            engine.step([Feed(slot, [7] * count, count, is_draft=count > 1)])
            if count > 1:
                engine.accept({slot: count})  # type: ignore[attr-defined]
            found.append(time.perf_counter() - start_s)
    engine.close()
    return {count: min(took[count]) / min(took[1]) for count in CHUNKS}


@click.command()
@click.option("--models", default="mid", show_default=True, help="Of mid, wide, tiny, dense.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--batches", default="1,8", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Engines are kept there.")
def main(models: str, rounds: int, batches: str, folder: Path | None) -> None:
    """Print ratios of tokens a second, with guesses over without."""
    place = folder or Path(tempfile.mkdtemp())
    for name in models.split(","):
        engine = place / f"{name}-engine"
        if not engine.exists():
            spec = BuildSpec("native", precision=Precision.INT8_WO, limits=LIMITS)
            build_engine(checkpoint(name, place), engine, spec)
        costs = chunk_costs(engine, rounds)
        print(name, "chunk", {count: f"{cost:.2f}" for count, cost in costs.items()}, flush=True)
        for batch in map(int, batches.split(",")):
            for case in cases():
                words = ("off", "auto")
                turns = [
                    {word: run(engine, case, batch, word) for word in words} for _ in range(rounds)
                ]
                assert all(turn["off"].tokens == turn["auto"].tokens for turn in turns)
                ratios = [t["auto"].tokens_per_s / t["off"].tokens_per_s for t in turns]
                best = [max(turn[word].tokens_per_s for turn in turns) for word in words]
                print(
                    f"{name} batch {batch} {case.name}: {best[0]:.1f} -> {best[1]:.1f} tokens/s, "
                    f"{best[1] / best[0]:.2f} (median {statistics.median(ratios):.2f}), "
                    f"{turns[0]['auto'].tokens_per_step:.2f} tokens a step",
                    flush=True,
                )


if __name__ == "__main__":
    main()
