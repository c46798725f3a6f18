"""A scheduler that guesses: every answer is that of one which does not, in fewer steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.engines.runtime.sampling.draws import NumpyDraws, open_draws
from nemotrt.engines.runtime.sampling.guide import COMPLETE, FREE, Allowed, Forced, Rule
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.reuse import KeepRules, Reuse
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.runtime.speculation.speculation import Speculation
from nemotrt.engines.runtime.state.kept.prefix_cache import PrefixCache
from support.drafting_engine import DraftingEngine

VOCAB = 12
EOS = (3,)
KEPT = 1 << 30


@dataclass
class Script:
    """A guide: free, one token, some tokens or the end, by the tokens that came before."""

    seed: int
    pushed: list[int] = field(default_factory=list)

    def rule(self) -> Rule:
        rng = np.random.default_rng([self.seed, len(self.pushed), sum(self.pushed)])
        what = rng.integers(0, 12)
        if what < 4:
            return Forced((self.seed + len(self.pushed)) % VOCAB)
        if what < 7:
            mask = rng.random(VOCAB) < 0.5
            mask[rng.integers(0, VOCAB)] = True
            return Allowed(mask)
        return COMPLETE if what == 11 and len(self.pushed) > 8 else FREE

    def push(self, token: int, text: str) -> None:
        self.pushed.append(token)

    def ahead(self) -> list[int]:
        """Return guesses, some of them wrong."""
        return [(self.seed + len(self.pushed) + further) % VOCAB for further in range(4)]


def scheduler(engine: DraftingEngine, *, guesses: bool, keeps: bool, **more: object) -> Scheduler:
    reuse = None
    if keeps:
        reuse = Reuse(engine, PrefixCache(KEPT, engine.state_bytes), KeepRules())
    return Scheduler(
        engine,
        eos_ids=EOS,
        reuse=reuse,
        speculation=Speculation(engine) if guesses else None,
        draws=NumpyDraws() if more.pop("by_numpy", False) else open_draws(engine),
        clock=lambda: 0.0,  # a step costs nothing: all is guessed
        **more,  # type: ignore[arg-type]
    )


params = st.builds(
    SamplingParams,
    max_tokens=st.integers(0, 40),
    temperature=st.sampled_from([0.0, 0.0, 0.3, 1.0]),
    top_k=st.sampled_from([0, 3]),
    top_p=st.sampled_from([1.0, 0.9]),
    seed=st.integers(0, 2**63 - 1),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.2]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.1]),
    logit_bias=st.sampled_from([(), ((2, 2.0),)]),
    stop_token_ids=st.sampled_from([(), (5,)]),
    ignore_eos=st.booleans(),
    logprobs=st.sampled_from([None, 2]),
    prompt_logprobs=st.sampled_from([None, None, 1]),
)


@st.composite
def requests(draw: st.DrawFn) -> list[Request]:
    stems = draw(
        st.lists(
            st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=20), min_size=1, max_size=3
        )
    )
    found = []
    for number in range(draw(st.integers(1, 6))):
        own = draw(st.lists(st.integers(0, VOCAB - 1), max_size=4))
        prompt = (*draw(st.sampled_from(stems)), *own)
        setting = draw(params)
        early = draw(st.integers(0, 10))
        found.append(
            Request(
                str(number),
                prompt,
                replace(setting, min_tokens=min(early, setting.max_tokens)),
                salt=draw(st.sampled_from(["", "a"])),
                priority=draw(st.integers(-1, 1)),
            )
        )
    return found


def copies(asked: Sequence[Request], guides: Sequence[int | None]) -> list[Request]:
    """Return the requests, each with a guide of its own."""
    return [
        request if seed is None else replace(request, guide=Script(seed))
        for request, seed in zip(asked, guides, strict=True)
    ]


def told(updates: Sequence[Update]) -> list[Update]:
    """Return what a request was told, but for what was kept: that hangs on who ended first."""
    return [replace(update, cached_tokens=None) for update in updates]


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_answer_is_that_without_guesses(data: st.DataObject) -> None:
    """Any settings, guides, ends, batches, chunks, budgets, kept states and cancellations."""
    asked = data.draw(requests())
    guides = [data.draw(st.none() | st.integers(0, 99)) for _ in asked]
    limits = Limits(data.draw(st.integers(1, 4)), 80, data.draw(st.integers(1, 30)))
    noise = data.draw(st.sampled_from([0.0, 0.3, 2.0]))
    keeps, by_numpy = data.draw(st.booleans()), data.draw(st.booleans())
    budget = data.draw(st.integers(limits.max_batch_size, 60))
    max_draft = data.draw(st.integers(2, 12))

    alone = {}
    for request in copies(asked, guides):
        plain = DraftingEngine(limits, VOCAB, noise=noise)
        alone[request.request_id] = told(
            run(scheduler(plain, guesses=False, keeps=False, by_numpy=by_numpy), [request])
        )

    engine = DraftingEngine(limits, VOCAB, max_draft=max_draft, noise=noise)
    guessing = scheduler(
        engine, guesses=True, keeps=keeps, by_numpy=by_numpy, max_num_tokens=budget
    )
    found: dict[str, list[Update]] = {request.request_id: [] for request in asked}
    for request in copies(asked, guides):
        guessing.submit(request)
        for _ in range(data.draw(st.integers(0, 4))):
            for update in guessing.step():
                found[update.request_id].append(update)
        if data.draw(st.integers(0, 9)) == 0:
            guessing.cancel(data.draw(st.sampled_from(sorted(found))))
    while not guessing.is_idle:
        for update in guessing.step():
            found[update.request_id].append(update)
    for name, updates in found.items():
        if updates[-1].finish_reason is FinishReason.CANCELLED:
            assert told(updates[:-1]) == alone[name][: len(updates) - 1]
        else:
            assert told(updates) == alone[name]
    assert not any(engine.held), "a slot is not empty"


def run(over: Scheduler, asked: Sequence[Request]) -> list[Update]:
    for request in asked:
        over.submit(request)
    updates = []
    while not over.is_idle:
        updates += over.step()
    return updates


def test_a_text_that_repeats_takes_fewer_steps() -> None:
    limits = Limits(1, 200, 30)
    request = Request("a", (1, 2, 4), SamplingParams(max_tokens=150, ignore_eos=True))
    steps = {}
    for guesses in (False, True):
        engine = DraftingEngine(limits, VOCAB, max_draft=9)
        over = scheduler(engine, guesses=guesses, keeps=False)
        run(over, [request])
        steps[guesses] = engine.num_steps
        if guesses:
            stats = over.speculation
            assert stats is not None
            assert stats.accepted_tokens + engine.num_steps == 150
            assert stats.accepted_tokens <= stats.drafted_tokens <= 8 * stats.drafts
    assert steps[False] == 150
    assert steps[True] <= 50


@pytest.mark.parametrize("salt", ["", "other"])
def test_an_answer_is_guessed_from_an_earlier_one_of_the_same_salt_alone(salt: str) -> None:
    """Its text is random and never repeats itself, but the same salt had it before."""
    limits = Limits(1, 200, 30)
    engine = DraftingEngine(limits, 4000, max_draft=9, noise=50.0)
    over = scheduler(engine, guesses=True, keeps=False)
    settings = SamplingParams(max_tokens=60, ignore_eos=True)
    first = run(over, [Request("a", (1, 2), settings)])
    before = engine.num_steps
    second = run(over, [Request("b", (1, 2), settings, salt=salt)])
    assert [u.tokens for u in first] == [u.tokens for u in second]
    taken = engine.num_steps - before
    assert taken < 20 if salt == "" else taken == 60


def test_a_forced_run_takes_one_step() -> None:
    class Tag:
        def __init__(self) -> None:
            self.left = [7, 1, 9, 9, 2, 8]

        def rule(self) -> Rule:
            return Forced(self.left[0]) if self.left else COMPLETE

        def push(self, token: int, text: str) -> None:
            self.left.pop(0)

        def ahead(self) -> list[int]:
            return list(self.left)

    engine = DraftingEngine(Limits(1, 40, 20), VOCAB, max_draft=9)
    over = scheduler(engine, guesses=True, keeps=False)
    updates = run(over, [Request("a", (1, 2), SamplingParams(max_tokens=20), Tag())])
    assert [token.id for update in updates for token in update.tokens] == [7, 1, 9, 9, 2, 8]
    assert updates[-1].finish_reason is FinishReason.STOP
    assert engine.num_steps == 2  # the prompt, whose token is the run's first; the rest of it
