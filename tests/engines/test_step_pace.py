"""Prompts that come in beside decoding sequences, on an engine whose time is a formula."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.runtime.scheduling.step_pace import FLOOR, StepPace
from nemotrt.errors import ConfigError
from support.stand_in import StandInEngine


class TimedEngine(StandInEngine):
    """A step lasts `base_s`, and `token_s` more for each token, twice as much at 8,000 held."""

    def __init__(self, base_s: float, token_s: float) -> None:
        limits = Limits(max_batch_size=4, max_seq_len=20_000, chunk_tokens=2048)
        super().__init__(limits, vocab_size=16)
        self.now_s = 0.0
        self.fed: list[tuple[int, int, float]] = []  # decodes, prompt tokens, seconds
        self._base_s, self._token_s = base_s, token_s

    def step(self, feeds: Sequence[Feed]) -> np.ndarray:
        prompts = [feed for feed in feeds if len(feed.tokens) > 1]
        num_prompt = sum(len(feed.tokens) for feed in prompts)
        held = sum(self.held_tokens(feed.slot) for feed in prompts)
        seconds = self._base_s + num_prompt * self._token_s * (1 + held / 8000)
        self.now_s += seconds
        self.fed.append((len(feeds) - len(prompts), num_prompt, seconds))
        self.advance(feeds)
        return np.zeros((len(feeds), self.vocab_size), np.float32)


def run(engine: TimedEngine, target_itl_s: float | None, prompt: int) -> list[float]:
    """The steps' times while a prompt comes in beside a stream."""
    scheduler = Scheduler(engine, target_itl_s=target_itl_s, clock=lambda: engine.now_s)
    scheduler.submit(Request("stream", (1, 2), SamplingParams(max_tokens=5000, ignore_eos=True)))
    scheduler.step()
    engine.fed.clear()
    scheduler.submit(Request("long", (1,) * prompt, SamplingParams(max_tokens=1)))
    for _ in range(4000):
        if any(update.request_id == "long" for update in scheduler.step()):
            break
    assert sum(tokens for _, tokens, _ in engine.fed) in (prompt, prompt - 1)
    return [seconds for decodes, _, seconds in engine.fed if decodes]


@pytest.mark.parametrize("token_us", [10, 100, 400])
@pytest.mark.parametrize("base_ms", [1, 20])
def test_a_neighbours_tokens_come_in_time(token_us, base_ms) -> None:
    """However fast the engine is, and as attention grows over what the prompt has so far."""
    target_s = 0.05
    free = run(TimedEngine(base_ms / 1e3, token_us / 1e6), None, 12_001)
    paced = run(TimedEngine(base_ms / 1e3, token_us / 1e6), target_s, 12_001)
    assert max(paced) <= 1.5 * target_s  # the step that finds out
    assert np.quantile(paced, 0.95) <= 1.1 * target_s
    if max(free) > 2 * target_s:
        floor = (base_ms + FLOOR * token_us * 2.5 / 1e3) / 1e3
        assert np.median(paced) >= min(0.6 * target_s, floor), "the target's time is used"


def test_a_prompt_goes_on_where_the_target_is_out_of_reach() -> None:
    engine = TimedEngine(base_s=0.2, token_s=1e-3)
    run(engine, 0.05, 200)
    assert {tokens for decodes, tokens, _ in engine.fed if decodes} <= {*range(FLOOR + 1)}


def test_a_prompt_alone_takes_whole_chunks() -> None:
    engine = TimedEngine(base_s=0.02, token_s=1e-3)
    scheduler = Scheduler(engine, target_itl_s=0.01, clock=lambda: engine.now_s)
    scheduler.submit(Request("long", (1,) * 4097, SamplingParams(max_tokens=1)))
    while not scheduler.is_idle:
        scheduler.step()
    assert [tokens for _, tokens, _ in engine.fed] == [2048, 2048, 0]


@given(
    st.lists(st.tuples(st.integers(1, 4096), st.floats(0, 10)), max_size=60),
    st.floats(1e-4, 1),
    st.integers(1, 4096),
)
def test_the_number_stays_within_its_bounds(steps, target_s, most) -> None:
    pace = StepPace(target_s, most)
    for tokens, seconds in steps:
        pace.learn(tokens, seconds)
        assert min(FLOOR, most) <= pace.tokens <= most


@pytest.mark.parametrize("target_s", [0, -1, float("nan"), float("inf")])
def test_a_target_that_is_no_time_is_refused(target_s) -> None:
    with pytest.raises(ConfigError, match="target"):
        StepPace(target_s, 100)


def test_an_engine_that_schedules_for_itself_takes_no_target(tiny_engine) -> None:
    class Own:
        def scheduler(self, tokenizer: object, eos_ids: tuple[int, ...]) -> str:
            return "its own"

    opened = open_engine(tiny_engine, OpenOptions(1), verify=False)
    own = replace(opened, engine=Own())  # type: ignore[arg-type]
    assert own.scheduler() == "its own"
    with pytest.raises(ConfigError, match="target-itl-ms"):
        own.scheduler(0.05)
    assert opened.scheduler(0.05).is_idle
    opened.engine.close()
