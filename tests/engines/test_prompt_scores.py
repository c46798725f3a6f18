"""Log-probabilities of a prompt's own tokens, against transformers, in any chunks and company."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Engine, Limits
from nemotrt.engines.runtime.request import FinishReason, PromptToken, Request, Update
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling import prompt_scores
from nemotrt.engines.runtime.scheduling import scheduler as step_loop
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from support import reference

LIMITS = Limits(max_batch_size=3, max_seq_len=64, chunk_tokens=7)
VOCAB = 96
Prompt = tuple[int, ...]


@pytest.fixture(scope="module", params=["nemotron_h", "qwen3"])
def model(request: pytest.FixtureRequest) -> Any:
    return reference.nemotron_h("M-*M*-") if request.param == "nemotron_h" else reference.qwen3()


@pytest.fixture(scope="module", params=["native", "onnxruntime"])
def engine(model: Any, request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Engine]:
    folder = tmp_path_factory.mktemp("scores")
    reference.save(model, folder / "c")
    build_engine(folder / "c", folder / "e", BuildSpec(request.param, limits=LIMITS))
    opened = open_engine(folder / "e", OpenOptions(1))
    yield opened.engine
    opened.engine.close()


def run(scheduler: Scheduler, requests: list[Request]) -> dict[str, list[Update]]:
    for request in requests:
        scheduler.submit(request)
    updates: dict[str, list[Update]] = {request.request_id: [] for request in requests}
    while not scheduler.is_idle:
        for update in scheduler.step():
            updates[update.request_id].append(update)
    return updates


def check(model: Any, prompt: Prompt, found: tuple[PromptToken, ...], num_top: int) -> None:
    """Every token but the first has transformers' log-probability, rank and likeliest tokens."""
    assert [token.id for token in found] == list(prompt)
    assert found[0].score is None
    expected = torch.log_softmax(torch.tensor(reference.logits(model, list(prompt))), -1).numpy()
    for token, row in zip(found[1:], expected[:-1], strict=True):
        assert token.score is not None
        assert token.score.logprob == pytest.approx(row[token.id], abs=1e-4)
        assert len(token.score.top_logprobs) == num_top
        for (top, logprob), best in zip(token.score.top_logprobs, -np.sort(-row), strict=False):
            assert logprob == pytest.approx(row[top], abs=1e-4)
            assert logprob == pytest.approx(best, abs=1e-4)
        rank = token.score.rank
        assert -np.sort(-row)[rank - 1] == pytest.approx(row[token.id], abs=1e-4)


prompts = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=40).map(tuple)


@given(
    asked=st.lists(
        st.tuples(prompts, st.none() | st.integers(0, 4), st.integers(0, 3)),
        min_size=1,
        max_size=5,
    ),
    rows=st.integers(1, 20),
)
@settings(max_examples=15, deadline=None)
def test_scores_are_transformers_in_any_company(
    model: Any, engine: Engine, asked: list[tuple[Prompt, int | None, int]], rows: int
) -> None:
    """With and without scores side by side, few rows a step or many, with and without output."""
    requests = [
        Request(
            str(number),
            prompt,
            SamplingParams(max_tokens=count, prompt_logprobs=num_top, ignore_eos=True),
        )
        for number, (prompt, num_top, count) in enumerate(asked)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_loop, "MAX_LOGITS_PER_STEP", rows * VOCAB)
        updates = run(Scheduler(engine), requests)
    for request, (prompt, num_top, count) in zip(requests, asked, strict=True):
        own = updates[request.request_id]
        assert sum(len(update.tokens) for update in own) == count
        assert [update.finish_reason for update in own][-1] == FinishReason.LENGTH
        assert all(update.finish_reason is None for update in own[:-1])
        assert all(not update.prompt for update in own[1:])
        if num_top is None:
            assert own[0].prompt == ()
        else:
            check(model, prompt, own[0].prompt, num_top)


def test_penalties_and_temperature_do_not_change_the_scores(model: Any, engine: Engine) -> None:
    """They are the model's own distribution."""
    prompt = tuple(range(5, 25))
    params = SamplingParams(
        max_tokens=2, temperature=1.5, top_k=3, repetition_penalty=3.0, prompt_logprobs=2, seed=1
    )
    [first, _] = run(Scheduler(engine), [Request("a", prompt, params)])["a"]
    check(model, prompt, first.prompt, 2)


class Watched:
    """An engine that notes how many rows each step gives; one row can be spoiled."""

    def __init__(self, engine: Engine, spoiled_step: int = -1) -> None:
        self._engine, self.rows, self._spoiled = engine, [], spoiled_step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self, feeds: Any) -> Any:
        logits = np.array(self._engine.step(feeds))
        self.rows.append(len(logits))
        if len(self.rows) - 1 == self._spoiled:
            logits[0, 3] = np.nan
        return logits


def test_no_step_holds_more_rows_than_the_limit(engine: Engine) -> None:
    watched = Watched(engine)
    assert prompt_scores.MAX_LOGITS_PER_STEP == 1 << 22
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_loop, "MAX_LOGITS_PER_STEP", 5 * VOCAB)
        params = SamplingParams(max_tokens=1, prompt_logprobs=0)
        run(Scheduler(watched), [Request(str(i), (1,) * 30, params) for i in range(3)])
    assert max(watched.rows) <= 5 + LIMITS.max_batch_size


def test_numbers_that_are_none_end_that_request_alone(engine: Engine, model: Any) -> None:
    params = SamplingParams(max_tokens=2, prompt_logprobs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step_loop, "MAX_LOGITS_PER_STEP", 14 * VOCAB)
        watched = Watched(engine, spoiled_step=1)
        requests = [Request("bad", (1,) * 12, params), Request("good", (2,) * 12, params)]
        updates = run(Scheduler(watched), requests)
    assert [u.finish_reason for u in updates["bad"]] == [FinishReason.ERROR]
    assert updates["bad"][0].error and updates["bad"][0].prompt == ()
    check(model, (2,) * 12, updates["good"][0].prompt, 1)
    assert updates["good"][-1].finish_reason == FinishReason.LENGTH
