"""Which runs are one line of a chart, and by which names lines are told apart."""

import itertools

import pytest

from nemotrt.profiles.reports.comparison import render_comparison
from nemotrt.profiles.runs.record.identity import differences, identity, line_names
from support.simulated_run import simulate

TARGET = {
    "kind": "in-process",
    "address": "/engines/a",
    "model": "nemotron_h 56",
    "backend": "native",
    "gpu": "none",
    "precision": "bf16",
    "checkpoint": "0123456789ab",
    "engine": "aaaaaaaaaaaa",
    "max_batch_size": 8,
}
OTHER = {
    "kind": "openai-chat",
    "model": "qwen3 36",
    "backend": "onnxruntime",
    "gpu": "a10g",
    "precision": "int8-wo",
    "checkpoint": "ba9876543210",
    "engine": "bbbbbbbbbbbb",
    "max_batch_size": 9,
}
RUN = simulate(1, users=1, osl=8, per_user=1)


def run(target=TARGET, **changes):
    return RUN.model_copy(update={"target": target} | changes)


@pytest.mark.parametrize("fact", OTHER)
def test_any_fact_of_the_target_makes_another_line(fact):
    runs = [run(), run(TARGET | {fact: OTHER[fact]}), run()]
    names = line_names(runs)
    assert names[0] == names[2] != names[1]
    assert str(OTHER[fact]) in names[1]
    assert differences(runs) == {fact: tuple(str(r.target[fact]) for r in runs)}


@pytest.mark.parametrize(
    "change", [{"isl": 11}, {"osl": 65}, {"language": "ja"}, {"arrival": "poisson"}]
)
def test_another_load_is_another_line_and_another_concurrency_is_not(change):
    other = run(workload=RUN.workload.model_copy(update=change))
    assert len(set(line_names([run(), other]))) == 2
    more_users = run(workload=RUN.workload.model_copy(update={"concurrency": 9}))
    assert len(set(line_names([run(), more_users]))) == 1


def test_another_machine_is_another_line():
    other = run(machine={"architecture": "x86_64", "num_cores": 64})
    assert "64 cores" in line_names([run(), other])[1]


def test_names_are_as_many_as_identities_for_every_set_of_facts():
    facts = ("model", "precision", "engine", "max_batch_size")
    choices = [
        run(TARGET | {name: OTHER[name] for name in chosen})
        for size in range(len(facts) + 1)
        for chosen in itertools.combinations(facts, size)
    ]
    for one, two in itertools.combinations(choices, 2):
        for runs in ([one, two], [one, two, *choices]):
            names = line_names(runs)
            assert (names[0] == names[1]) == (identity(one) == identity(two))


def test_an_engine_is_the_same_wherever_it_is_served():
    moved = run(TARGET | {"address": "/elsewhere"})
    assert len(set(line_names([run(), moved]))) == 1
    unknown = {"kind": "openai-chat", "address": "http://a", "model": "llm"}
    assert len(set(line_names([run(unknown), run(unknown | {"address": "http://b"})]))) == 2


def test_a_report_draws_two_precisions_as_two_lines():
    page = render_comparison([run(), run(TARGET | {"precision": "int8-wo", "engine": "bbbb"})])
    assert "nemotron_h 56, bf16" in page and "nemotron_h 56, int8-wo" in page
