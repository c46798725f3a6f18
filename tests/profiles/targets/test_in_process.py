"""The in-process target: an engine that fails, and one without a tokenizer."""

from dataclasses import replace

import numpy as np
import pytest

from nemotrt.errors import ConfigError
from nemotrt.profiles.load.targets.in_process import InProcessTarget
from nemotrt.profiles.load.workload import ErrorLimit, Workload
from nemotrt.profiles.runs import measure

LOAD = Workload(8, 6, 4, concurrency=2, num_warmup=0)


def failing(target, error):
    """Let the engine's third step raise."""
    engine = target._opened.engine
    step, calls = engine.step, []

    def broken(feeds):
        calls.append(feeds)
        if len(calls) == 3:
            raise error
        return step(feeds)

    engine.step = broken


def test_a_fault_of_the_engine_fails_the_run(engine_folder):
    target = InProcessTarget(engine_folder)
    failing(target, ConfigError("no memory."))
    result = measure.run(target, LOAD)
    assert result.status == "failed"
    assert "the engine failed: no memory" in result.reason
    assert sum(r.num_output_tokens for r in result.requests) > 0


def test_a_bug_in_the_engine_keeps_its_traceback(engine_folder):
    target = InProcessTarget(engine_folder)
    failing(target, ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        measure.run(target, LOAD)


def test_prompts_without_a_tokenizer_are_random_ids(engine_folder):
    target = InProcessTarget(engine_folder)
    target._maker = None
    prompts = [target.prompt(index, 50) for index in (0, 1, 0)]
    assert prompts[0] == prompts[2] != prompts[1]
    assert all(len(prompt.ids) == 50 for prompt in prompts)
    assert measure.run(target, LOAD).status == "complete"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_fail_their_requests_alone(engine_folder, bad):
    target = InProcessTarget(engine_folder)
    engine = target._opened.engine
    step, calls = engine.step, []

    def spoiled(feeds):
        calls.append(feeds)
        logits = np.array(step(feeds))
        if len(calls) == 3:
            logits[0, 5] = bad
        return logits

    engine.step = spoiled
    result = measure.run(target, replace(LOAD, max_errors=ErrorLimit(0.0)))
    errors = [request.error for request in result.requests if request.error]
    assert len(errors) == 1 and "the engine's logits are not finite" in errors[0]
    assert result.status == "failed" and "not finite" in result.reason
