"""Tokens a second with guesses and without, on texts that repeat and on texts that do not.

Run: python benchmarks/speculation.py [--models mid,wide] [--rounds 3] [--batches 1,8]

Random weights repeat nothing, so each answer is a given text: a guide forces its tokens, one at a
time, and tells nothing of the next ones. The engine computes all it would, the guesses come from
the prompt and the answer so far. Of each text: how many tokens a step yields, and the ratio of
tokens a second with `--speculate auto` over `off`, which take turns of 50 ms. `chunk` is what a
step takes that looks at so many tokens of one sequence, over a step of one token.
"""

import json
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
SLICE_S = 0.05  # in which one side runs before it is the other's turn


@dataclass(frozen=True)
class Case:
    """A prompt, and the text that is said to it."""

    name: str
    prompt: str
    answer: str


def cases() -> list[Case]:
    """Return tool calls, a code edit, a summary with quotes, and prose about something else."""
    dashboard = json.loads((ROOT / "serve/deploy/grafana.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] == "timeseries"][:3]
    schema = {"name": "update_panel", "parameters": {"properties": {"panel": {"type": "object"}}}}
    tools = f"{json.dumps(schema)}\nPut a unit into each title.\n{json.dumps(panels)}"
    calls = [
        {"name": "update_panel", "arguments": {"panel": panel | {"title": f"{panel['title']} (s)"}}}
        for panel in panels
    ]

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
        Case("free text", "\n".join(texts), (ROOT / "docs/reference/profiling.md").read_text()),
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


class Side:
    """One scheduler that says a text, some steps at a time, and the time that it took for them."""

    def __init__(self, folder: Path, case: Case, batch: int, word: str, most: int) -> None:
        """Run the prompts; each has a salt, so that none helps another."""
        tokenizer = load_tokenizer(TINY_MODELS["tiny"])
        prompt = tuple(tokenizer.encode(case.prompt))[:2000]
        answer = tokenizer.encode(case.answer)[:most]
        self._opened = open_engine(folder, OpenOptions(speculate=word), verify=False)
        self._scheduler = replace(self._opened, tokenizer=None, eos_ids=()).scheduler()
        settings = SamplingParams(max_tokens=len(answer), ignore_eos=True)
        for number in range(batch):
            own = (*prompt[number:], *prompt[:number])
            name = str(number)
            self._scheduler.submit(Request(name, own, settings, Said(answer), salt=name))
        self.tokens: list[tuple[str, int]] = []
        self.num_steps = 0
        while len(self.tokens) < batch:
            self._step()
        self._num_before, self.num_steps, self.seconds = len(self.tokens), 0, 0.0

    def go_on(self) -> bool:
        """Make steps for a while; return whether there are more to make."""
        start_s = time.perf_counter()
        end_s = start_s + SLICE_S
        while not self._scheduler.is_idle and time.perf_counter() < end_s:
            self._step()
        self.seconds += time.perf_counter() - start_s
        return not self._scheduler.is_idle

    def _step(self) -> None:
        for update in self._scheduler.step():
            self.tokens += [(update.request_id, token.id) for token in update.tokens]
        self.num_steps += 1

    @property
    def num_tokens(self) -> int:
        """Tokens whose time was taken."""
        return len(self.tokens) - self._num_before

    @property
    def tokens_per_s(self) -> float:
        """Of all sequences together."""
        return self.num_tokens / self.seconds

    def close(self) -> None:
        """Free the engine."""
        self._opened.engine.close()


def race(folder: Path, case: Case, batch: int, most: int) -> tuple[Side, Side]:
    """Return a text said without guesses and with, in slices that take turns."""
    sides = [Side(folder, case, batch, word, most) for word in ("off", "auto")]
    while any([side.go_on() for side in sides]):
        pass
    for side in sides:
        side.close()
    assert sorted(sides[0].tokens) == sorted(sides[1].tokens), "guesses have changed a token"
    return sides[0], sides[1]


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
@click.option("--tokens", default=700, show_default=True, help="Of an answer, at most.")
@click.option("--folder", type=click.Path(path_type=Path), help="Engines are kept there.")
def main(models: str, rounds: int, batches: str, tokens: int, folder: Path | None) -> None:
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
                races = [race(engine, case, batch, tokens) for _ in range(rounds)]
                ratios = sorted(auto.tokens_per_s / off.tokens_per_s for off, auto in races)
                told = " ".join(f"{ratio:.2f}" for ratio in ratios)
                off, auto = max(races, key=lambda pair: pair[0].tokens_per_s)
                print(
                    f"{name} batch {batch} {case.name}: {off.tokens_per_s:.1f} -> "
                    f"{auto.tokens_per_s:.1f} tokens/s, ratios {told}, "
                    f"{auto.num_tokens / auto.num_steps / batch:.2f} tokens a step",
                    flush=True,
                )


if __name__ == "__main__":
    main()
