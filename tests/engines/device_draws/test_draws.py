"""The device sampler's host side, over a stand-in that does the stream's work as late as it may."""

from collections.abc import Sequence
from ctypes import sizeof
from typing import Any

import numpy as np
import pytest

from nemotrt.build.check.kernels.sampler_cases import CARD, likely
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda
from nemotrt.engines.backends.tensorrt.draws.draws import DeviceDraws
from nemotrt.engines.backends.tensorrt.draws.tables import (
    MAX_VOCAB,
    SAMPLER,
    SLOT_BYTES,
    CTurn,
    device_bytes,
    slot_bytes,
)
from nemotrt.engines.runtime.sampling.draws import CompiledDraws, NumpyDraws, Turn
from nemotrt.engines.runtime.sampling.guide import FREE, Allowed, Forced, Rule
from nemotrt.engines.runtime.sampling.limits import MAX_BIASES
from nemotrt.engines.runtime.sampling.params import SampledToken, SamplingParams
from nemotrt.errors import ConfigError
from support import cuda_stand_in
from support.emulated_draws import Device, QueuedKernels, no_scorer
from support.emulated_kernels import emulated_set

SIZE = 300
REPEATING: dict[str, Any] = {"temperature": 1.0, "repetition_penalty": 3.0}


class Steps:
    """A device that holds the logits of many steps, so that nothing waits for their upload."""

    def __init__(self, num_steps: int, num_slots: int, **kwargs: Any) -> None:
        self.rows = likely(np.random.default_rng(5), SIZE, num_steps * num_slots)
        self.device = Device(SIZE, num_slots, num_rows=len(self.rows), **kwargs)
        self.draws = self.device.draws
        self.device.upload(self.rows)
        self.by_step = self.rows.reshape(num_steps, num_slots, SIZE)

    def address(self, step: int) -> int:
        return self.device.logits + int(self.by_step[0].nbytes) * step


def alone(
    params: SamplingParams,
    rows: np.ndarray,
    prompt: Sequence[int],
    rules: Sequence[Rule] | None = None,
) -> list[int]:
    """The CPU's tokens of one sequence."""
    draws = CompiledDraws(SIZE, 1)
    memory = draws.open(params, prompt, ())
    found = []
    for row, rule in zip(rows, rules or [FREE] * len(rows), strict=True):
        [choice] = draws.choose(row[None], [Turn(0, memory, rule)])
        assert choice is not None
        found.append(choice.token)
    return found


def tokens(choices: Sequence[SampledToken | None]) -> list[int | None]:
    return [choice.token if choice else None for choice in choices]


def test_the_next_step_s_ids_are_on_the_device_before_the_host_knows_them() -> None:
    """A step ahead: choose, feed the next step, and only then ask what was chosen."""
    steps = Steps(5, 4)
    params = [SamplingParams(seed=i, max_tokens=9, **REPEATING) for i in range(3)]
    draws = [steps.draws.open(i, params[i], (i, 7), ()) for i in range(3)]
    ids = [steps.device.cuda.allocate(8 * 4).address for _ in range(5)]
    orders = [[0, 1, 2], [2, 0, 1], [1, -1, 0, 2], [0], [2, 1]]
    found = []
    read = steps.device.cuda.host_array((5, 4), np.int64)
    for address in ids:
        steps.device.cuda.zero(address, 8 * 4)
    steps.draws.choose(steps.address(0), [Turn(i, draw) for i, draw in enumerate(draws)])
    for step in range(5):
        steps.draws.feed(ids[step], orders[step])
        steps.device.cuda.to_host(read[step], ids[step])
        num_queued = len(steps.device.api.queue)
        found.append(tokens(steps.draws.chosen()))
        assert 0 < len(steps.device.api.queue) < num_queued, "it waits for the choice alone"
        if step < 4:
            turns = [Turn(i, draw) for i, draw in enumerate(draws)]
            steps.draws.choose(steps.address(step + 1), turns)
    steps.device.cuda.synchronize()
    for slot in range(3):
        expected = alone(params[slot], steps.by_step[:, slot], (slot, 7))
        assert [step[slot] for step in found] == expected
    for step, order in enumerate(orders):
        fed = [0 if slot < 0 else found[step][slot] for slot in order]
        assert read[step, : len(order)].tolist() == fed
    steps.device.close()


def test_many_feeds_may_be_on_their_way() -> None:
    steps = Steps(1, 3)
    draws = [steps.draws.open(i, SamplingParams(), (), ()) for i in range(3)]
    steps.draws.choose(steps.address(0), [Turn(i, draw) for i, draw in enumerate(draws)])
    orders = [[0, 1], [1, 2], [2, 0], [0, 0]]
    ids = steps.device.cuda.allocate(8 * 8).address
    for number, order in enumerate(orders):
        steps.draws.feed(ids + 16 * number, order)
    read = steps.device.cuda.host_array((4, 2), np.int64)
    steps.device.cuda.to_host(read, ids)
    chosen = tokens(steps.draws.chosen())
    steps.device.cuda.synchronize()
    assert read.tolist() == [[chosen[slot] for slot in order] for order in orders]
    steps.device.close()


def test_a_slot_is_reused_while_its_former_owner_s_token_is_due() -> None:
    """Cancelled: the old one's token comes of its own tables, the new one's of fresh ones."""
    steps = Steps(3, 2)
    biases = tuple((token, 6.0) for token in range(20))
    first = SamplingParams(seed=1, frequency_penalty=2.0, logit_bias=biases, **REPEATING)
    other = SamplingParams(seed=2, frequency_penalty=2.0, logit_bias=((50, 9.0),), **REPEATING)
    old = steps.draws.open(0, first, range(0, 150), ())
    steps.draws.choose(steps.address(0), [Turn(0, old)])
    gone = steps.draws.open(0, first, range(20, 90), ())  # and cancelled at once
    new = steps.draws.open(0, other, range(150, 300), ())
    [before] = tokens(steps.draws.chosen())
    assert [before] == alone(first, steps.by_step[:1, 0], range(0, 150))
    found = []
    for step in (1, 2):
        steps.draws.choose(steps.address(step), [Turn(0, new)])
        found += tokens(steps.draws.chosen())
    assert found == alone(other, steps.by_step[1:, 0], range(150, 300))
    assert (old.c.position, gone.c.position, new.c.position) == (1, 0, 2)
    steps.device.close()


class Copies:
    """What is copied to the masks on the device, as (first slot, number)."""

    def __init__(self, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: list[tuple[int, int]] = []
        size, start = slot_bytes(SIZE)["masks"], device.draws._tables.at["masks"]
        end = start + size * device.draws._num_slots
        plain = device.api.cudaMemcpyAsync

        def copy(dst: int, src: int, count: int, kind: Any, stream: int) -> tuple[int]:
            if start <= dst < end:
                self.found.append(((dst - start) // size, count // size))
            return plain(dst, src, count, kind, stream)

        monkeypatch.setattr(device.api, "cudaMemcpyAsync", copy)

    def take(self) -> list[tuple[int, int]]:
        found, self.found = self.found, []
        return found


def test_a_mask_is_uploaded_when_it_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps(8, 4)
    copies = Copies(steps.device, monkeypatch)
    params = SamplingParams(seed=3, max_tokens=20, min_tokens=7, stop_token_ids=(9,), **CARD)
    plain = SamplingParams(seed=3, max_tokens=20, **CARD)
    random = np.random.default_rng(0)
    a, b, c = (Allowed(random.random(SIZE) < 0.1) for _ in range(3))
    draws = [steps.draws.open(i, params if i == 3 else plain, (), ()) for i in range(4)]
    rules: list[list[Rule]] = [
        [a, a, FREE, FREE],
        [a, a, FREE, FREE],
        [b, a, b, FREE],
        [Forced(4), a, b, a],
        [b, FREE, c, a],
        [b, a, c, FREE],
        [c, b, FREE, FREE],
        [c, b, FREE, FREE],
    ]
    uploads = [[(0, 2), (3, 1)], [], [(0, 1), (2, 1)], [(3, 1)], [(2, 1)], [(1, 1), (3, 1)]]
    uploads += [[(0, 2)], []]  # at last ends may come again, which takes no mask
    found = []
    for step, row in enumerate(rules):
        turns = [Turn(i, draw, rule) for i, (draw, rule) in enumerate(zip(draws, row, strict=True))]
        steps.draws.choose(steps.address(step), turns)
        found.append(tokens(steps.draws.chosen()))
        assert copies.take() == uploads[step], step
    for slot in range(4):
        expected = alone(
            params if slot == 3 else plain, steps.by_step[:, slot], (), [row[slot] for row in rules]
        )
        assert [step[slot] for step in found] == expected
    steps.device.close()


def test_log_probabilities_are_the_cpu_s() -> None:
    """Of the raw row, with as many of the likeliest as each asks for."""
    steps = Steps(3, 5, scorer=CompiledDraws(SIZE, 1))
    wanted = [3, None, 0, 3, 7]
    params = [
        SamplingParams(seed=i, logprobs=num_top, presence_penalty=1.0, **CARD)
        for i, num_top in enumerate(wanted)
    ]
    draws = [steps.draws.open(i, each, (1,), ()) for i, each in enumerate(params)]
    cpu = CompiledDraws(SIZE, 1)
    memories = [cpu.open(each, (1,), ()) for each in params]
    for step in range(3):
        order = [4, 1, 3, 0, 2]
        steps.draws.choose(steps.address(step), [Turn(i, draws[i]) for i in order])
        expected = cpu.choose(steps.by_step[step], [Turn(i, memories[i]) for i in order])
        assert steps.draws.chosen() == expected
    steps.device.close()


def test_a_faulty_row_s_log_probabilities_are_none_beside_others() -> None:
    device = Device(SIZE, 2, scorer=NumpyDraws())
    rows = np.zeros((2, SIZE), np.float32)
    rows[0, 9] = np.nan
    draws = [device.draws.open(i, SamplingParams(logprobs=1), (), ()) for i in range(2)]
    bad, good = device.step(rows, [Turn(i, draw) for i, draw in enumerate(draws)])
    assert bad is None and good is not None and good.logprob == pytest.approx(-np.log(SIZE))
    device.close()


def test_nothing_is_asked_of_an_empty_step() -> None:
    device = Device(SIZE)
    device.draws.choose(device.logits, [])
    assert device.draws.chosen() == []
    device.close()


def test_what_does_not_fit_is_refused_before_anything_changes() -> None:
    device = Device(SIZE, 2)
    draw, other = (device.draws.open(i, SamplingParams(), (), ()) for i in range(2))
    device.cuda.synchronize()
    refused: list[tuple[list[Turn], type[Exception], str]] = [
        ([Turn(1, other), Turn(0, draw, Forced(SIZE))], ConfigError, "forced token 300"),
        ([Turn(1, other), Turn(0, draw, Forced(-1))], ConfigError, "forced token -1"),
        ([Turn(0, draw, Allowed(np.ones(SIZE - 1, np.bool_)))], ValueError, "mask of 299"),
        ([Turn(0, draw), Turn(1, draw)], ValueError, "two turns"),
    ]
    for turns, kind, message in refused:
        with pytest.raises(kind, match=message):
            device.draws.choose(device.logits, turns)
        assert not device.api.queue
    with pytest.raises(RuntimeError, match="without choose"):
        device.draws.chosen()
    device.draws.choose(device.logits, [Turn(0, draw)])
    with pytest.raises(RuntimeError, match="before chosen"):
        device.draws.choose(device.logits, [Turn(0, draw)])
    device.draws.chosen()
    for slot in (-1, 2):
        with pytest.raises(ValueError, match=f"slot {slot} of 2"):
            device.draws.open(slot, SamplingParams(), (), ())
    for slots in ([2], [-2], [], [0, 1, 0]):
        with pytest.raises(ValueError, match=r"slot|ids to feed"):
            device.draws.feed(device.logits, slots)
    for token in (-1, SIZE):
        with pytest.raises(ConfigError, match="logit_bias ids must be 0 to 299"):
            device.draws.open(0, SamplingParams(logit_bias=((token, 1.0),)), (), ())
    device.close()


def test_limits_are_told_by_name() -> None:
    SamplingParams(logit_bias=tuple((0, 1.0) for _ in range(MAX_BIASES)))
    with pytest.raises(ConfigError, match="at most 1024 tokens, got 1025"):
        SamplingParams(logit_bias=tuple((0, 1.0) for _ in range(MAX_BIASES + 1)))
    api = cuda_stand_in.Cuda()
    cuda, library = Cuda(api), QueuedKernels(api, emulated_set(SAMPLER))
    with pytest.raises(ConfigError, match=f"a vocabulary of 1 to {MAX_VOCAB}, got 262144"):
        DeviceDraws(cuda, library, MAX_VOCAB + 1, 1, scorer=no_scorer())


def test_as_many_biases_as_may_be() -> None:
    """Also of one token: they are added in their order."""
    random = np.random.default_rng(2)
    biases = tuple(
        (int(token), float(bias))
        for token, bias in zip(
            random.integers(0, SIZE, MAX_BIASES), random.normal(size=MAX_BIASES), strict=True
        )
    )
    steps = Steps(3, 1)
    params = SamplingParams(seed=1, temperature=1.0, logit_bias=biases)
    draw = steps.draws.open(0, params, (), ())
    found = []
    for step in range(3):
        steps.draws.choose(steps.address(step), [Turn(0, draw)])
        found += tokens(steps.draws.chosen())
    assert found == alone(params, steps.by_step[:, 0], ())
    steps.device.close()


@pytest.mark.parametrize(("size", "slots"), [(1, 1), (300, 7), (257, 2)])
def test_the_memory_is_what_it_is_said_to_be(size: int, slots: int) -> None:
    api = cuda_stand_in.Cuda()
    library = QueuedKernels(api, emulated_set(SAMPLER))
    DeviceDraws(Cuda(api), library, size, slots, scorer=no_scorer())
    assert sum(map(len, api.device.values())) == device_bytes(size, slots)
    needs = slot_bytes(size)
    staged = sum(needs[name] for name in ("masks", "seen", "biased", "biases", "results"))
    each = 4 * size + staged + sizeof(CTurn) + 2 * SLOT_BYTES  # logits for log-probabilities first
    assert sum(map(len, api.host.values())) == slots * each
