"""A plan and the kernels that choose its tokens on one stream, a step ahead, over the stand-ins.

CUDA's stand-in does queued work as late as CUDA may, and only up to the event that is waited for;
TensorRT's runs the graph in ONNX Runtime; the kernels run in the emulator.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tests.engines.test_tensorrt_engine import open_on_stand_in, relative_error

from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.draws.draws import DeviceDraws
from nemotrt.engines.backends.tensorrt.draws.tables import SAMPLER
from nemotrt.engines.backends.tensorrt.run import batch_inputs
from nemotrt.engines.backends.tensorrt.run import engine as engine_module
from nemotrt.engines.backends.tensorrt.run.engine import TensorRTEngine
from nemotrt.engines.runtime.engine import CHOSEN, Feed
from nemotrt.engines.runtime.request import ErrorCode, FinishReason, Request, Update
from nemotrt.engines.runtime.sampling.draws import CompiledDraws, Draws, Turn
from nemotrt.engines.runtime.sampling.guide import FREE, Allowed, Forced, Rule
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.reuse import KeepRules, Reuse
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.runtime.state.kept.prefix_cache import PrefixCache
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from support import reference
from support import tensorrt_stand_in as stand_in
from support.emulated_draws import SMALL, QueuedKernels
from support.emulated_kernels import emulated_set

VOCAB = 96


@dataclass
class Rig:
    """An engine whose pipeline is a step ahead, on the stand-ins."""

    model: Any
    engine: TensorRTEngine
    trt: stand_in.TensorRT

    @property
    def num_waiting(self) -> int:
        """Pieces of work that the stream has not done."""
        return len(self.trt.cuda.queue)


@pytest.fixture(params=[stand_in.RtxTensorRT, stand_in.TensorRT])
def rig(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Rig]:
    """Both flavours; the sampler's library is the emulator's."""
    model = reference.nemotron_h("M-*M-")
    source = reference.save(model, tmp_path / "c")
    engine, trt = open_on_stand_in(source, tmp_path / "e", flavour=request.param)
    kernels = Loaded(trt.cuda, emulated_set(SAMPLER))
    monkeypatch.setattr(engine_module, "open_sampler_library", lambda capability: kernels)
    monkeypatch.setattr(engine_module, "DeviceDraws", Watched)
    monkeypatch.setattr(Watched, "rows", {})
    yield Rig(model, engine, trt)
    engine.close()
    assert trt.cuda.device == {} and trt.cuda.host == {} and trt.cuda.events == {}


class Loaded(QueuedKernels):
    def load(self) -> None:
        """Nothing: the emulator has them."""


class Watched(DeviceDraws):
    """Says for each choice what the CPU's sampler makes of the very logits, and keeps those.

    The logits are copied in the stream's turn: nothing is waited for on their account.
    """

    rows: ClassVar[dict[int, list[np.ndarray]]] = {}  # seed of a request -> its logits

    def __init__(
        self, cuda: Cuda, library: Any, vocab_size: int, num_slots: int, *, scorer: Draws
    ) -> None:
        super().__init__(cuda, library, vocab_size, num_slots, scorer=scorer, **SMALL._asdict())
        self.cpu = CompiledDraws(vocab_size, 1)
        self.theirs: dict[int, Any] = {}  # slot -> the CPU's draw
        self.seeds: dict[int, int] = {}
        self.away: dict[int, tuple[Any, int]] = {}  # of those without a slot
        self.seen = cuda.host_array((num_slots, vocab_size), np.float32)
        self.turns: list[Turn] = []

    def open(self, slot: int, params: SamplingParams, *rest: Any) -> Any:
        self.theirs[slot] = self.cpu.open(params, *rest)
        self.seeds[slot] = params.seed or 0
        return super().open(slot, params, *rest)

    def park(self, draw: Any) -> Any:
        self.away[id(draw)] = self.theirs[draw.slot], self.seeds[draw.slot]
        return super().park(draw)

    def resume(self, parked: Any, slot: int) -> Any:
        self.theirs[slot], self.seeds[slot] = self.away.pop(id(parked.draw))
        return super().resume(parked, slot)

    def choose(self, logits_address: int, turns: Sequence[Turn]) -> None:
        self.turns = [
            Turn(index, self.theirs[turn.draw.slot], turn.rule) for index, turn in enumerate(turns)
        ]
        self.due = [self.seeds[turn.draw.slot] for turn in turns]
        for index, turn in enumerate(turns):
            own = self.seen[index : index + 1]
            self._cuda.to_host(own, logits_address + turn.row * own.nbytes)
        super().choose(logits_address, turns)

    def chosen(self) -> list[Any]:
        found = super().chosen()
        if self.turns:
            assert found == self.cpu.choose(self.seen[: len(self.turns)], self.turns)
        for index, seed in enumerate(self.due):
            self.rows.setdefault(seed, []).append(self.seen[index].copy())
        return found


class Steps:
    """A guide: the next token is free, forced, or one of a few that hang on the last one."""

    def __init__(self) -> None:
        self.last, self.count = 0, 0

    def rule(self) -> Rule:
        if self.count % 4 == 1:
            return Forced((self.last * 7 + 3) % VOCAB)
        if self.count % 4 == 3:
            return FREE
        mask = np.zeros(VOCAB, np.bool_)
        mask[[(self.last + step) % VOCAB for step in (1, 5, 11, 40)]] = True
        return Allowed(mask)

    def push(self, token: int, text: str) -> None:
        self.last, self.count = token, self.count + 1


CARD = {"temperature": 0.6, "top_p": 0.95}
KINDS: list[dict[str, Any]] = [
    {},
    CARD,
    {"temperature": 1.2, "top_k": 20, "min_p": 0.02},
    CARD | {"repetition_penalty": 1.3, "frequency_penalty": 0.4},
    CARD | {"logprobs": 3},
    CARD | {"prompt_logprobs": 2},
    {"temperature": 1.0, "logit_bias": ((3, 2.0), (9, -50.0))},
    {"min_tokens": 4, "stop_token_ids": (5, 6, 7, 8)},
]


def make_request(number: int, random: np.random.Generator) -> Request:
    prompt = tuple(random.integers(0, VOCAB, int(random.integers(1, 30))).tolist())
    kind = KINDS[number % len(KINDS)]
    params = SamplingParams(max_tokens=int(random.integers(4, 14)), seed=number, **kind)
    return Request(str(number), prompt, params, Steps() if number % 3 == 0 else None)


def run(
    scheduler: Scheduler, requests: list[Request], cancelled: tuple[str, ...] = ()
) -> dict[str, list[Update]]:
    """Each request's updates; those to be cancelled are, at their third token."""
    found: dict[str, list[Update]] = defaultdict(list)
    for request in requests:
        scheduler.submit(request)
    while not scheduler.is_idle:
        for update in scheduler.step():
            found[update.request_id].append(update)
        for name in cancelled:
            if len(found[name]) == 3 and name in scheduler.running:
                scheduler.cancel(name)
    return found


def ids(updates: list[Update]) -> list[int]:
    return [token.id for update in updates for token in update.tokens]


def requests(count: int = 24) -> list[Request]:
    return [make_request(number, np.random.default_rng(number)) for number in range(count)]


def check_answers(
    rig: Rig,
    found: dict[str, list[Update]],
    asked: list[Request],
    cancelled: tuple[str, ...] = (),
) -> None:
    """Check each request's end and tokens, and its logits against transformers' for these."""
    for request in asked:
        updates, params = found[request.request_id], request.params
        last = updates[-1]
        assert last.error == ""
        tokens = ids(updates)
        if last.finish_reason is FinishReason.CANCELLED:
            assert request.request_id in cancelled
        elif last.finish_reason is FinishReason.STOP:
            assert tokens[-1] in (0, 1, *params.stop_token_ids)
            assert len(tokens) > params.min_tokens
        else:
            assert len(tokens) == params.max_tokens
        assert not {0, 1, *params.stop_token_ids} & set(tokens[:-1])
        asked = params.prompt_logprobs is not None
        assert [len(u.prompt) for u in updates] == [
            asked and index == 0 and len(request.prompt) for index in range(len(updates))
        ]
        whole = [*request.prompt, *tokens]
        expected = reference.logits(rig.model, whole)[len(request.prompt) - 1 : len(whole) - 1]
        assert params.seed is not None
        rows = Watched.rows[params.seed][: len(tokens)]
        for mine, theirs in zip(rows, expected, strict=True):
            assert relative_error(mine, theirs) < 0.1  # another token is off by one and more


def test_every_token_is_what_the_host_would_choose(rig: Rig) -> None:
    """24 requests of every kind over four slots, with guides, ends and cancellations.

    The logits are the reference's for the tokens so far: so what was fed is what was chosen.
    """
    cancelled = ("4", "10", "19")
    found = run(Scheduler(rig.engine, eos_ids=(0, 1)), requests(), cancelled)
    check_answers(rig, found, requests(), cancelled)
    ends = {updates[-1].finish_reason for updates in found.values()}
    assert ends == {FinishReason.STOP, FinishReason.LENGTH, FinishReason.CANCELLED}


def test_kept_states_change_no_token_s_logits(rig: Rig) -> None:
    """Requests of every kind that share prompts; later ones take the slots of earlier ones."""
    cache = PrefixCache(1 << 20, rig.engine.state_bytes)
    scheduler = Scheduler(rig.engine, eos_ids=(0, 1), reuse=Reuse(rig.engine, cache, KeepRules()))
    stem = tuple(np.random.default_rng(0).integers(0, VOCAB, 24).tolist())
    asked = [
        replace(request, prompt=stem + request.prompt[:12], priority=-(number // 4))
        for number, request in enumerate(requests(16))
    ]
    found: dict[str, list[Update]] = defaultdict(list)
    for part in (asked[:2], asked[2:8], asked[8:12], asked[12:]):
        for request in part:
            scheduler.submit(request)
        for _ in range(6):
            for update in scheduler.step():
                found[update.request_id].append(update)
    for name, updates in run(scheduler, []).items():
        found[name].extend(updates)
    check_answers(rig, found, asked)
    assert cache.stats.preemptions > 1
    assert cache.stats.hit_tokens > 5 * len(stem)


def test_the_next_step_is_in_the_stream_before_tokens_are_read(rig: Rig) -> None:
    """While the host has a step's tokens, the stream has the whole next step to do."""
    scheduler = Scheduler(rig.engine)
    for number in range(3):
        params = SamplingParams(max_tokens=12, seed=number, **CARD)
        scheduler.submit(Request(str(number), (1 + number, 2), params))
    scheduler.step()  # the prompts
    for _ in range(8):
        before = rig.trt.num_executions
        updates = scheduler.step()
        assert len(updates) == 3
        assert rig.trt.num_executions <= before + 1
        assert rig.num_waiting >= 3, "the next step waits for the host"
    assert rig.trt.cuda.num_launches > 0, "decode steps are captured graphs here too"
    run(scheduler, [])


@pytest.mark.parametrize("broken", ["inputs", "results"])
def test_what_is_not_waited_for_shows(
    rig: Rig, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in would tell a set of inputs that is written too early, and tokens read so."""
    expected = run(Scheduler(rig.engine, draws=CompiledDraws(VOCAB, 1)), requests(8))
    scheduler = Scheduler(rig.engine)
    if broken == "inputs":
        monkeypatch.setattr(batch_inputs, "DEPTH", 1)
        rig.engine._allocate_buffers()
    own, events = Cuda.wait, set(rig.engine._inputs._staging._events)

    def wait(cuda: Cuda, event: int) -> None:
        if (event in events) != (broken == "inputs"):
            own(cuda, event)

    monkeypatch.setattr(Cuda, "wait", wait)
    try:
        found = run(scheduler, requests(8))
        assert {n: ids(u) for n, u in found.items()} != {n: ids(u) for n, u in expected.items()}
    except (AssertionError, IndexError, RuntimeError, ValueError, OverflowError):
        pass  # garbage was refused on its way
    finally:
        monkeypatch.undo()
        rig.trt.cuda.queue.clear()


def test_a_sequence_that_ended_is_fed_once_more_and_leaves_nothing(rig: Rig) -> None:
    """Its slot is clean for the next, whose tokens are those of a fresh engine."""
    alone = run(Scheduler(rig.engine, draws=CompiledDraws(VOCAB, 1)), [requests(2)[1]])["1"]
    scheduler = Scheduler(rig.engine, eos_ids=tuple(range(0, VOCAB, 2)))
    run(scheduler, [Request(str(i), (i,), SamplingParams(max_tokens=20)) for i in range(9)])
    assert all(rig.engine.held_tokens(rig.engine.allocate()) == 0 for _ in range(4))
    for slot in range(4):
        rig.engine.release(slot)
    assert ids(run(Scheduler(rig.engine), [requests(2)[1]])["1"]) == ids(alone)


def test_logits_that_are_no_numbers_end_their_request_alone(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = rig.engine._cuda.host_array((VOCAB,), np.float32)
    poison[...] = 1
    poison[40] = np.nan
    choose: Callable[..., None] = Watched.choose

    def spoil(draws: Watched, logits: int, turns: Any) -> None:
        for turn in turns:
            if turn.draw.slot == 1 and turn.draw.c.position == 3:
                rig.engine._cuda.to_device(logits + turn.row * poison.nbytes, poison)
        choose(draws, logits, turns)

    monkeypatch.setattr(Watched, "choose", spoil)
    prompts = [Request(str(i), (1 + i,), SamplingParams(max_tokens=6)) for i in range(3)]
    found = run(Scheduler(rig.engine), prompts)
    ends = {name: updates[-1] for name, updates in found.items()}
    assert ends["1"].error_code is ErrorCode.LOGITS_NOT_FINITE and len(ids(found["1"])) == 3
    for name in ("0", "2"):
        assert ends[name].finish_reason is FinishReason.LENGTH and len(ids(found[name])) == 6


def test_without_a_compiler_the_host_chooses(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(capability: str) -> Any:
        raise EnvironmentUnfitError("nothing compiles kernels here.")

    expected = run(Scheduler(rig.engine), requests(4))
    monkeypatch.setattr(engine_module, "open_sampler_library", refuse)
    with caplog.at_level(logging.WARNING, "nemotrt.engine"):
        found = run(Scheduler(rig.engine), requests(4))
    assert "tokens are chosen by the host" in caplog.text
    assert {n: ids(u) for n, u in found.items()} == {n: ids(u) for n, u in expected.items()}


def test_a_chosen_token_is_for_pipelines_alone(rig: Rig) -> None:
    slot = rig.engine.allocate()
    rig.engine.step([Feed(slot, [1, 2])])
    with pytest.raises(ConfigError, match="token ids"):
        rig.engine.step([Feed(slot, [CHOSEN])])
