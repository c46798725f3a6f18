"""The engine over TensorRT-LLM's LLM, on a stand-in in a Python of its own."""

import dataclasses
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.backends.tensorrt_llm import scheduler as scheduler_module
from nemotrt.engines.backends.tensorrt_llm.apart import service
from nemotrt.engines.backends.tensorrt_llm.interpreter import PYTHON_VARIABLE
from nemotrt.engines.backends.tensorrt_llm.options import TensorRTLLMOptions
from nemotrt.engines.backends.tensorrt_llm.sampling import sampling_fields
from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.generation import collect, generate
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.engines.runtime.sampling import guide
from nemotrt.engines.runtime.sampling.guide import AfterThinking, ThinkingBudget
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.text.reasoning import Trace
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ChildProcessFailedError, ConfigError
from nemotrt.wire.request import NUMBERS
from support.other_world import World

LIMITS = Limits(max_batch_size=3, max_seq_len=96, chunk_tokens=16)
PROMPT = (1, 700, 23, 1999, 4)
SHORT = SamplingParams(max_tokens=4)
PENALIZED = SamplingParams(max_tokens=4, presence_penalty=0.5)
BUDGET = ThinkingBudget(DEFAULT, 1, lambda text: [5])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundle") / "b"
    build_engine(TINY_MODELS["tiny"], target, BuildSpec("tensorrt-llm", "a10g", limits=LIMITS))
    return target


@pytest.fixture(scope="module")
def opened(bundle: Path, world: World) -> Iterator[OpenEngine]:
    with world.chosen():
        opened = open_engine(bundle)
        yield opened
        process = opened.engine.process  # type: ignore[attr-defined]
        opened.engine.close()
        assert process._last_words.lines()[-1] == "the stand-in is shut down"


@pytest.fixture(scope="module")
def cpu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenEngine]:
    """The oracle: the same checkpoint on the CPU engine, by our own scheduler."""
    target = tmp_path_factory.mktemp("cpu") / "e"
    build_engine(TINY_MODELS["tiny"], target, BuildSpec(limits=LIMITS))
    opened = open_engine(target, OpenOptions(1))
    yield opened
    opened.engine.close()


def run(opened: OpenEngine, **params: Any) -> dict[str, Any]:
    return collect(list(generate(opened.scheduler(), PROMPT, SamplingParams(**params))), 5)


def some_text(cpu: OpenEngine) -> str:
    return str(run(cpu, max_tokens=40, ignore_eos=True)["text"])


@pytest.mark.parametrize(
    "params",
    [
        {"max_tokens": 40},
        {"max_tokens": 24, "ignore_eos": True},
        {"max_tokens": 12, "repetition_penalty": 1.4, "ignore_eos": True},
        {"max_tokens": 12, "presence_penalty": 1.5, "frequency_penalty": -0.5, "ignore_eos": True},
        {"max_tokens": 60, "min_tokens": 50, "ignore_eos": True},
        {"max_tokens": 6, "logprobs": 0, "ignore_eos": True},
        {"max_tokens": 6, "logit_bias": ((700, 100.0),), "ignore_eos": True},
        {"max_tokens": 9, "logit_bias": ((5, 2.5), (5, 1.0), (9, -100.0)), "ignore_eos": True},
        {"max_tokens": 6, "temperature": 2.0, "seed": 1, "min_p": 1.0, "ignore_eos": True},
        {"max_tokens": 6, "logprobs": 3, "ignore_eos": True},
    ],
)
def test_greedy_tokens_and_text_are_the_cpu_engines(
    params: dict[str, Any], opened: OpenEngine, cpu: OpenEngine
) -> None:
    ours, theirs = run(cpu, **params), run(opened, **params)
    for mine, other in zip(ours["tokens"], theirs["tokens"], strict=True):
        assert other["logprob"] == pytest.approx(mine["logprob"])
        assert [t["id"] for t in other["top_logprobs"]] == [t["id"] for t in mine["top_logprobs"]]
    ids = [[token["id"] for token in found["tokens"]] for found in (ours, theirs)]
    assert ids[0] == ids[1]
    assert (theirs["text"], theirs["finish_reason"]) == (ours["text"], ours["finish_reason"])


def test_biases_are_a_finite_tensor_of_the_vocabulary() -> None:
    """By hand: those of a token add up; what float32 can't hold stays finite."""
    biases = ((0, 1.5), (3, -100.0), (0, 0.25), (2, 1e300), (1, -1e300))
    fields = sampling_fields(SamplingParams(logit_bias=biases), ())
    bias = service.make_params(SimpleNamespace, fields, 5).embedding_bias
    assert str(bias.dtype) == "torch.float32"
    assert bias.tolist() == pytest.approx([1.75, -1e30, 1e30, -100.0, 0.0])
    assert "embedding_bias" not in sampling_fields(SamplingParams(), ())


def test_every_plain_number_is_an_argument_of_tensorrt_llm_s(opened: OpenEngine) -> None:
    for name, told in NUMBERS.items():
        assert name not in sampling_fields(SamplingParams(), ())
        value = told.neutral + 0.5
        params = SamplingParams(max_tokens=2, **{name: value})
        assert sampling_fields(params, ())[name] == value
        [*_, update] = generate(opened.scheduler(), PROMPT, params)
        assert update.finish_reason is not FinishReason.ERROR, update.error


def test_a_field_that_a_version_has_not_is_its_request_s_fault(opened: OpenEngine) -> None:
    process = opened.engine.process  # type: ignore[attr-defined]
    number = process.start(PROMPT, {"max_tokens": 2, "of_next_year": 1})
    [news] = process.take(30)
    assert (news.number, news.fault.kind) == (number, "request")
    assert "of_next_year" in news.fault.message


@pytest.mark.parametrize("num_top", [0, 3])
@pytest.mark.parametrize("max_tokens", [0, 5])
def test_prompt_logprobs_are_the_cpu_engines(
    num_top: int, max_tokens: int, opened: OpenEngine, cpu: OpenEngine
) -> None:
    """From the context logits; it takes no max_tokens of 0, so what it then gives is dropped."""
    params = {"max_tokens": max_tokens, "prompt_logprobs": num_top, "ignore_eos": True}
    ours, theirs = run(cpu, **params), run(opened, **params)
    assert theirs == ours
    assert [token["id"] for token in theirs["prompt"]] == list(PROMPT)
    assert len(theirs["tokens"]) == max_tokens and theirs["finish_reason"] == "length"


def test_context_logits_that_are_not_the_prompts_fail_the_request(
    opened: OpenEngine, world: World
) -> None:
    """As of a library that reuses a prefix: its rows would be another token's."""
    params = SamplingParams(max_tokens=4, prompt_logprobs=1)
    with world.broken(context_rows=3):
        [update] = generate(opened.scheduler(), PROMPT, params)
    assert update.finish_reason is FinishReason.ERROR and "context logits" in update.error
    assert len(run(opened, max_tokens=4, ignore_eos=True)["tokens"]) == 4


def test_prompt_logprobs_and_a_budget_exclude_each_other(opened: OpenEngine) -> None:
    params = SamplingParams(max_tokens=4, prompt_logprobs=1)
    with pytest.raises(ConfigError, match="prompt_logprobs exclude max_thinking_tokens"):
        opened.scheduler().submit(Request("r", PROMPT, params, BUDGET))


def test_min_tokens_is_for_one_end(opened: OpenEngine, cpu: OpenEngine) -> None:
    """TensorRT-LLM forbids `end_id` alone: the model's three ends would end the text early."""
    with pytest.raises(ConfigError, match=r"has 3: 12, 2, 11\. Leave out min_tokens"):
        run(opened, max_tokens=60, min_tokens=50)
    ids = [t["id"] for t in run(cpu, max_tokens=30, ignore_eos=True)["tokens"]]
    one, other, *_ = dict.fromkeys(ids)
    with pytest.raises(ConfigError, match="this request has 2"):
        run(opened, max_tokens=30, min_tokens=9, ignore_eos=True, stop_token_ids=(one, other))
    for token in (one, other):  # one end is kept, whosever it is
        params = {"max_tokens": 30, "min_tokens": 9, "ignore_eos": True, "stop_token_ids": (token,)}
        assert run(opened, **params) == run(cpu, **params)


def test_a_stop_string_ends_the_text_and_frees_the_llm(opened: OpenEngine, cpu: OpenEngine) -> None:
    stop = some_text(cpu)[10:13]
    params = {"max_tokens": 40, "ignore_eos": True, "stop": (stop,)}
    assert run(opened, **params) == run(cpu, **params)
    assert run(opened, max_tokens=3)["usage"] == run(cpu, max_tokens=3)["usage"]


def test_an_end_token_that_the_llm_keeps_to_itself_is_no_loss(
    opened: OpenEngine, cpu: OpenEngine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = run(cpu, max_tokens=40, ignore_eos=True)["tokens"][9]["id"]
    found = []
    for engine in (cpu, opened):
        scheduler = engine.scheduler()
        monkeypatch.setattr(scheduler, "eos_ids", (end,))
        params = SamplingParams(max_tokens=40)
        with world.broken(hides_end=True):
            found.append(collect(list(generate(scheduler, PROMPT, params)), 5))
    mine, other = found
    assert other["tokens"] == mine["tokens"][:-1]
    assert (other["text"], other["finish_reason"]) == (mine["text"], "stop")


def test_a_stop_token_is_reported_and_not_part_of_the_text(
    opened: OpenEngine, cpu: OpenEngine
) -> None:
    tokens = run(cpu, max_tokens=40, ignore_eos=True)["tokens"]
    params = {"max_tokens": 40, "ignore_eos": True, "stop_token_ids": (tokens[7]["id"],)}
    assert run(opened, **params) == run(cpu, **params)


@settings(
    deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 30)), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
def test_requests_of_any_mix_do_not_disturb_each_other(
    lengths: list[tuple[int, int]], seed: int, opened: OpenEngine, cpu: OpenEngine
) -> None:
    requests = [
        Request(
            str(i),
            tuple((seed * 131 + i * 17 + j * 29) % 4096 for j in range(isl)),
            SamplingParams(max_tokens=osl, ignore_eos=True),
        )
        for i, (isl, osl) in enumerate(lengths)
    ]
    found = []
    for engine in (cpu, opened):
        scheduler, tokens = engine.scheduler(), {request.request_id: [] for request in requests}
        for request in requests:
            scheduler.submit(request)
        while not scheduler.is_idle:
            for update in scheduler.step():
                tokens[update.request_id] += [token.id for token in update.tokens]
        found.append(tokens)
    assert found[0] == found[1]


@pytest.mark.parametrize("budget", [0, 1, 7])
@pytest.mark.parametrize("max_tokens", [3, 8, 30])
def test_a_thinking_budget_is_kept_by_a_second_request(
    budget: int,
    max_tokens: int,
    opened: OpenEngine,
    cpu: OpenEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The closing tag is due at once, in the middle, or cut short by max_tokens."""
    monkeypatch.setattr(guide, "GRACE_TOKENS", 2)
    found = []
    for engine in (cpu, opened):
        tokenizer = engine.tokenizer
        assert tokenizer is not None
        thinking = ThinkingBudget(
            DEFAULT, budget, partial(tokenizer.encode, add_special_tokens=False)
        )
        params = SamplingParams(max_tokens=max_tokens, min_tokens=2, ignore_eos=True)
        scheduler = engine.scheduler()
        scheduler.submit(Request("r", PROMPT, params, thinking))
        updates: list[Update] = []
        while not scheduler.is_idle:
            updates += scheduler.step()
        found.append(collect(updates, 5))
    assert found[0] == found[1]
    if max_tokens == 30:
        assert "</think>" in found[1]["text"]


def test_a_cancelled_request_ends_at_once_and_says_no_more(opened: OpenEngine) -> None:
    scheduler = opened.scheduler()
    params = SamplingParams(max_tokens=80, ignore_eos=True)
    scheduler.submit(Request("a", PROMPT, params))
    scheduler.submit(Request("b", PROMPT, params))
    updates: list[Update] = []
    while sum(len(update.tokens) for update in updates if update.request_id == "a") < 3:
        updates = [*updates, *scheduler.step()]
    scheduler.cancel("a")
    scheduler.cancel("a")
    scheduler.cancel("never there")
    assert list(scheduler.running) == ["b"]
    later: list[Update] = []
    while not scheduler.is_idle:
        later += scheduler.step()
    assert [u.finish_reason for u in later if u.request_id == "a"] == [FinishReason.CANCELLED]
    tokens = [t.id for u in (*updates, *later) if u.request_id == "b" for t in u.tokens]
    assert tokens == [t["id"] for t in run(opened, max_tokens=80, ignore_eos=True)["tokens"]]


def test_a_request_that_is_cancelled_as_soon_as_it_came_reaches_the_llm(
    opened: OpenEngine, world: World
) -> None:
    """Else the LLM would run it to its end for nobody."""
    scheduler, num_before = opened.scheduler(), world.num_aborted
    for number in range(20):
        scheduler.submit(Request(str(number), PROMPT, SamplingParams(max_tokens=80)))
        scheduler.cancel(str(number))
    run(opened, max_tokens=2)  # behind them in the same queue
    assert world.num_aborted == num_before + 20


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("r", ()), "empty"),
        (Request("r", (4096,)), "0 to 4095"),
        (
            Request("r", PROMPT, SamplingParams(max_tokens=4, logit_bias=((4096, 1.0),))),
            "logit_bias ids must be 0 to 4095",
        ),
        (Request("r", PROMPT, SamplingParams(max_tokens=92)), "is 97 tokens; the engine holds 96"),
        (Request("r", PROMPT, SHORT, AfterThinking(BUDGET, BUDGET)), "no guided decoding"),
        (Request("r", PROMPT, PENALIZED, BUDGET), "exclude max_thinking_tokens"),
    ],
)
def test_what_it_can_not_run_is_refused(
    request_: Request, message: str, opened: OpenEngine
) -> None:
    scheduler = opened.scheduler()
    with pytest.raises(ConfigError, match=message):
        scheduler.submit(request_)
    assert scheduler.is_idle


def test_an_id_in_use_is_refused(opened: OpenEngine) -> None:
    scheduler = opened.scheduler()
    request = Request("r", PROMPT, SHORT)
    scheduler.submit(request)
    with pytest.raises(ConfigError, match="in use"):
        scheduler.submit(request)
    scheduler.cancel("r")


def test_there_are_no_slots_and_no_logits(opened: OpenEngine) -> None:
    engine = opened.engine
    for call in (
        engine.allocate,
        lambda: engine.release(0),
        lambda: engine.held_tokens(0),
        lambda: engine.step([Feed(0, [1])]),
    ):
        with pytest.raises(ConfigError, match="takes whole requests"):
            call()


@pytest.mark.parametrize("kind", ["request", "fatal"])
def test_a_request_s_fault_is_its_own_and_any_other_is_fatal(
    kind: str, opened: OpenEngine, world: World
) -> None:
    scheduler = opened.scheduler()
    updates: list[Update] = []
    with world.broken(fault=kind):
        scheduler.submit(Request("r", PROMPT, SHORT))
        if kind == "fatal":
            with pytest.raises(ChildProcessFailedError, match="out of memory"):
                while True:
                    scheduler.step()
            return
        while not scheduler.is_idle:
            updates += scheduler.step()
        assert updates == [Update("r", finish_reason=FinishReason.ERROR, error="too long")]


def test_an_llm_that_gives_nothing_is_taken_for_dead(
    opened: OpenEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = opened.scheduler()
    scheduler.submit(Request("r", PROMPT, SHORT))
    monkeypatch.setattr(scheduler._process, "take", lambda timeout_s: [])  # type: ignore[attr-defined]
    scheduler.step()
    later = time.monotonic() + scheduler_module.STALL_S + 1
    monkeypatch.setattr(scheduler_module.time, "monotonic", lambda: later)
    with pytest.raises(ChildProcessFailedError, match="gave no token for 120 s"):
        scheduler.step()
    monkeypatch.undo()
    scheduler.cancel("r")


def test_a_checkpoint_that_has_changed_is_not_served(tmp_path: Path) -> None:
    import shutil

    source, target = tmp_path / "c", tmp_path / "b"
    shutil.copytree(TINY_MODELS["tiny"], source)
    build_engine(source, target, BuildSpec("tensorrt-llm", "a10g", limits=LIMITS))
    text = (source / "config.json").read_text()
    (source / "config.json").write_text(text.replace('"pad_token_id": 12', '"pad_token_id": 0'))
    with pytest.raises(ArtefactError, match="has changed since"):
        open_engine(target)
    shutil.rmtree(source)
    with pytest.raises(ArtefactError, match="is missing"):
        open_engine(target)


def test_arguments_that_are_not_tensorrt_llm_s_are_found_at_opening(
    bundle: Path, tmp_path: Path
) -> None:
    import shutil

    target = tmp_path / "b"
    shutil.copytree(bundle, target)
    args = yaml.safe_load((target / "llm_args.yaml").read_text())
    args["kv_cache_config"]["mamba_ssm_cache_dtype"] = "float64"
    (target / "llm_args.yaml").write_text(yaml.safe_dump(args))
    with pytest.raises(ArtefactError, match=r"kv_cache_config\.mamba_ssm_cache_dtype"):
        open_engine(target, verify=False)


def test_what_tensorrt_llm_says_against_a_start_is_passed_on(tmp_path: Path, world: World) -> None:
    """Two GPUs where the LLM sees one."""
    target = tmp_path / "b"
    spec = BuildSpec("tensorrt-llm", "a10g", limits=LIMITS, options=TensorRTLLMOptions(tp_size=2))
    build_engine(TINY_MODELS["tiny"], target, spec)
    with world.chosen():
        found = CliRunner().invoke(main, ["generate", str(target), "--prompt-ids", "1"])
    assert found.exit_code == 3
    assert "TensorRT-LLM 1.2.1 can't start" in found.stderr
    assert "Only 1 GPUs are available" in found.stderr


def test_generate_runs_a_bundle(bundle: Path, cpu: OpenEngine, world: World) -> None:
    ids = ",".join(map(str, PROMPT))
    with world.chosen() as patch:
        patch.delenv(PYTHON_VARIABLE)
        command = ["generate", str(bundle), "--prompt-ids", ids]
        command += ["--tensorrt-llm-python", str(world.python)]
        found = CliRunner().invoke(main, command)
    assert found.exit_code == 0, found.output
    assert found.stdout.strip() == str(run(cpu, max_tokens=91)["text"]).strip()


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
def test_log_probabilities_that_are_not_finite_end_their_request(
    bad: str, opened: OpenEngine, world: World
) -> None:
    """They are all that shows of logits that are not; the LLM goes on with the others."""
    scheduler = opened.scheduler()
    params = SamplingParams(max_tokens=6, ignore_eos=True)
    updates: list[Update] = []
    with world.broken(logprob=bad):
        scheduler.submit(Request("bad", PROMPT, dataclasses.replace(params, logprobs=1)))
        scheduler.submit(Request("good", PROMPT, params))
        while not scheduler.is_idle:
            updates += scheduler.step()
    bad_end = next(u for u in updates if u.request_id == "bad" and u.finish_reason)
    assert (bad_end.finish_reason, bad_end.error_code) == ("error", "logits_not_finite")
    assert sum(len(u.tokens) for u in updates if u.request_id == "good") == 6


@pytest.mark.parametrize("min_tokens", [0, 4, 9, 15])
@pytest.mark.parametrize("trace", list(Trace))
def test_stop_strings_count_where_ours_count_them(
    min_tokens: int, trace: Trace, opened: OpenEngine, cpu: OpenEngine
) -> None:
    text = some_text(cpu)
    params = SamplingParams(
        max_tokens=30, min_tokens=min_tokens, ignore_eos=True, stop=(text[4:6], text[12:14])
    )
    found = []
    for engine in (cpu, opened):
        scheduler, updates = engine.scheduler(), []
        scheduler.submit(Request("r", PROMPT, params, trace=trace))
        while not scheduler.is_idle:
            updates += scheduler.step()
        found.append(collect(updates, 5))
    assert found[0] == found[1]
    assert found[0]["finish_reason"] == ("length" if trace is Trace.OPEN else "stop")


@pytest.mark.parametrize("stop", ["\n\n", "</think>"])
def test_a_forced_tag_stops_nothing(stop: str, opened: OpenEngine) -> None:
    tokenizer, scheduler = opened.tokenizer, opened.scheduler()
    assert tokenizer is not None
    thinking = ThinkingBudget(DEFAULT, 0, partial(tokenizer.encode, add_special_tokens=False))
    params = SamplingParams(max_tokens=8, ignore_eos=True, stop=(stop,))
    scheduler.submit(Request("r", PROMPT, params, thinking))
    updates: list[Update] = []
    while not scheduler.is_idle:
        updates += scheduler.step()
    assert "".join(update.text for update in updates).startswith("</think>\n\n")
