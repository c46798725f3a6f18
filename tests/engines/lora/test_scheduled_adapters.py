"""Adapters under the scheduler: kept prefixes, guesses, preemption, cancellation, merged ones."""

import functools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.backends import registry
from nemotrt.engines.checkpoint.lora.merging import Merging
from nemotrt.engines.checkpoint.lora.named import NamedAdapter
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import check_adapters, open_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.llm import LLM
from support import lora

TURNS = (tuple(range(300, 340)), (7, 8, 9, 10) * 12, tuple(range(20, 50)))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine of int8 weights and two slots."""
    folder = tmp_path_factory.mktemp("small") / "engine"
    spec = BuildSpec("native", precision=Precision.INT8_WO, limits=Limits(2, 160, 32))
    build_engine(TINY_MODELS["tiny"], folder, spec)
    return folder


def opened(folder: Path, own: dict[str, Path], **how: Any) -> Any:
    named = tuple(NamedAdapter(name, path) for name, path in own.items())
    return open_engine(folder, OpenOptions(1, lora=named, **how))


def take(updates: list[Update], found: dict[str, list[Update]]) -> None:
    for update in updates:
        found.setdefault(update.request_id, []).append(update)


def ids(updates: list[Update]) -> list[int]:
    return [token.id for update in updates for token in update.tokens]


@pytest.mark.slow
def test_every_answer_is_that_of_the_request_alone(
    small: Path, adapters: dict[str, dict[str, Path]]
) -> None:
    """Adapters, salts, priorities, forks and cancellations in any order, two slots."""
    alone = opened(small, adapters["tiny"], speculate="off")
    made = opened(small, adapters["tiny"], speculate="4")
    seen = {"preempted": 0, "cached": 0, "drafted": 0}

    @functools.cache
    def wanted(prompt: tuple[int, ...], count: int, seed: int | None, adapter: str) -> list[int]:
        scheduler, found = alone.scheduler(), {}
        scheduler.submit(Request("r", prompt, params(count, seed), adapter=adapter))
        while not scheduler.is_idle:
            take(scheduler.step(), found)
        return ids(found["r"])

    @settings(max_examples=25, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        scheduler = made.scheduler(kept_bytes=1 << 26)
        asked: dict[str, Request] = {}
        found: dict[str, list[Update]] = {}
        for number in range(data.draw(st.integers(1, 9))):
            prompt = data.draw(st.sampled_from(TURNS))
            request = Request(
                str(number),
                (*prompt, *data.draw(st.sampled_from([(), (5,), prompt[:9]]))),
                params(data.draw(st.integers(1, 24)), data.draw(st.sampled_from([None, 1]))),
                adapter=data.draw(st.sampled_from(["", "some", "every"])),
                salt=data.draw(st.sampled_from(["", "a"])),
                priority=data.draw(st.integers(-1, 1)),
            )
            scheduler.submit(request)
            asked[request.request_id] = request
            for _ in range(data.draw(st.integers(0, 8))):
                take(scheduler.step(), found)
            if data.draw(st.integers(0, 5)) == 0:
                scheduler.cancel(data.draw(st.sampled_from(sorted(asked))))
        while not scheduler.is_idle:
            take(scheduler.step(), found)
        for name, request in asked.items():
            chosen = request.params
            want = wanted(request.prompt, chosen.max_tokens, chosen.seed, request.adapter)
            said = ids(found.get(name, []))
            if found.get(name) and found[name][-1].finish_reason is FinishReason.CANCELLED:
                want = want[: len(said)]
            assert said == want
        seen["preempted"] += scheduler.kept.preemptions
        seen["cached"] += sum(u.cached_tokens or 0 for each in found.values() for u in each)
        seen["drafted"] += scheduler.speculation.accepted_tokens

    check()
    assert all(seen.values()), seen
    alone.engine.close()
    made.engine.close()


def params(count: int, seed: int | None) -> SamplingParams:
    """Return greedy settings, or with a seed those of a draw."""
    if seed is None:
        return SamplingParams(max_tokens=count)
    return SamplingParams(max_tokens=count, temperature=1.0, seed=seed)


def test_a_preempted_request_goes_on_with_its_adapter(
    small: Path, adapters: dict[str, dict[str, Path]]
) -> None:
    made = opened(small, adapters["tiny"])

    def run(*others: Request) -> tuple[list[int], int]:
        scheduler, found = made.scheduler(kept_bytes=1 << 26), {}
        for name in ("first", "second"):
            scheduler.submit(
                Request(name, TURNS[0], SamplingParams(max_tokens=20), priority=5, adapter="every")
            )
        for _ in range(6):
            take(scheduler.step(), found)
        for other in others:
            scheduler.submit(other)
        while not scheduler.is_idle:
            take(scheduler.step(), found)
        assert ids(found["first"]) == ids(found["second"])
        return ids(found["first"]), scheduler.kept.preemptions

    want, none = run()
    urgent = [Request(x, TURNS[2], SamplingParams(max_tokens=4), adapter=x) for x in ("some",)]
    found, parked = run(*urgent, Request("plain", TURNS[2], SamplingParams(max_tokens=4)))
    assert (none, parked) == (0, 2)
    assert found == want
    made.engine.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY_MODELS)
def test_tokens_are_those_of_the_merged_engine(
    name: str,
    engines: Any,
    bases: dict[str, Path],
    adapters: dict[str, dict[str, Path]],
    tmp_path: Path,
) -> None:
    settings, texts = SamplingParams(max_tokens=16), ["Once upon", "The state", "How do I"]
    answers = []
    with LLM(engines(name, Precision.FP32), lora=adapters[name], quiet=True) as beside:
        for adapter, path in adapters[name].items():
            merged = tmp_path / adapter
            spec = BuildSpec("native", precision=Precision.FP32, limits=lora.LIMITS)
            build_engine(bases[name], merged, replace(spec, lora=(Merging(path),)))
            with LLM(merged, quiet=True) as whole:
                want = [answer.text for answer in whole.generate(texts, settings)]
            found = beside.generate(texts, settings, adapter=adapter)
            assert [answer.text for answer in found] == want
            answers.append(want)
        plain = [answer.text for answer in beside.generate(texts, settings)]
    assert plain not in answers and answers[0] != answers[1]


def test_backends_without_adapters_say_how_else() -> None:
    given = (NamedAdapter("pirate", Path("adapters/pirate")),)
    names = []
    for backend in registry.backends():
        manifest: Any = SimpleNamespace(backend=backend.name)
        check_adapters(manifest, ())
        if backend.takes_adapters:
            check_adapters(manifest, given)
            continue
        names.append(backend.name)
        cure = rf"nemotrt build CHECKPOINT --backend {backend.name} --lora adapters/pirate\."
        with pytest.raises(ConfigError, match=cure):
            check_adapters(manifest, given)
    assert {"onnxruntime", "tensorrt"} <= set(names)
