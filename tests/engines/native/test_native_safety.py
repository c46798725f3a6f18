"""Whatever a program says: it is refused with a reason, or runs inside its own memory.

The slow tests run this file on a library with sanitizers, which see reads as well.
"""

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.binding import (
    check_program,
    close_program,
    open_program,
    run_step,
)
from nemotrt.engines.backends.native.program.program import (
    WEIGHTS_FILE,
    Program,
    read_program,
    round_up,
)
from nemotrt.engines.backends.native.structures import (
    CBuffer,
    COp,
    CProgram,
    CTensor,
    numbers,
    program_spec,
)
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.errors import ArtefactError
from support import reference

LIMITS = Limits(max_batch_size=2, max_seq_len=32, chunk_tokens=8)
MODELS = {
    "nemotron_h": (lambda: reference.nemotron_h("M-*"), Precision.INT8_WO),
    "nemotron_h_bf16": (lambda: reference.nemotron_h("*M-"), Precision.BF16),
    "qwen3": (lambda: reference.qwen3(1), Precision.INT8_WO),
    "experts": (lambda: reference.nemotron_h("E", moe_latent_size=20), Precision.INT8_WO),
}
REASON = re.compile(
    r"operation \d+ \(\w+\): .|(tensor|buffer|state) \d+|there (is|are) no "
    r"|must be \d+ to \d+, got "
)
NUMBERS = st.sampled_from((-1, 0, 1, 2, 3, 5, 16, 17, 48, 64, 97, 4096, 1 << 20, (1 << 31) - 1))
WORDS = st.integers(-(1 << 31), (1 << 31) - 1)
SETTINGS = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
GUARD = 4096
CANARY = 0xA5


@dataclass
class Case:
    """A sound program and its weights."""

    whole: dict[str, Any]
    program: Program
    weights: np.ndarray


@pytest.fixture(scope="module", params=list(MODELS))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    tmp = tmp_path_factory.mktemp("p")
    model, precision = MODELS[request.param]
    reference.save(model(), tmp / "c")
    build_engine(tmp / "c", tmp / "e", BuildSpec("native", precision=precision, limits=LIMITS))
    program = read_program(tmp / "e")
    weights = np.fromfile(tmp / "e" / WEIGHTS_FILE, np.uint8)
    return Case(program.model_dump(mode="json"), program, weights)


class Guarded:
    """Zeros between two guards."""

    def __init__(self, num_bytes: int) -> None:
        self._whole = np.full(num_bytes + 2 * GUARD, CANARY, np.uint8)
        self.inside = self._whole[GUARD : GUARD + num_bytes]
        self.inside[:] = 0

    def check(self) -> None:
        assert (self._whole[:GUARD] == CANARY).all(), "written before its start"
        assert (self._whole[GUARD + self.inside.size :] == CANARY).all(), "written past its end"


def spec_of(program: Program, weights: np.ndarray) -> CProgram:
    return program_spec(
        program,
        weights=weights.ctypes.data,
        weights_bytes=weights.size,
        max_slots=2,
        max_tokens=8,
        num_threads=2,
        isa=0,
    )


def is_run(spec: CProgram, weights: np.ndarray) -> bool:
    """Whether a program is run, with guards round all that it may write; False if refused."""
    before = weights.copy()
    try:
        check_program(spec, Path("folder"))
    except ArtefactError as error:
        assert REASON.search(error.message), error.message
        assert len(error.message) < 600
        return False
    sizes = [2 * spec.states[i].slot_elements * 4 for i in range(spec.num_states)]
    assume(sum(sizes) < 1 << 26)  # a state that nothing uses may be as large as it likes
    states = [Guarded(size) for size in sizes]
    for index, state in enumerate(states):
        spec.states[index].data = state.inside.ctypes.data
    logits = Guarded(4 * 8 * round_up(spec.vocab_size))
    handle = open_program(spec, Path("folder"))
    seconds = np.zeros(spec.num_ops)
    for batch, tokens in (
        ([(1, 0, 3, 1), (0, 5, 1, 1)], [1, 2, 3, 4]),
        ([(0, LIMITS.max_seq_len - 8, 8, 8)], [0, 1, 2, 3, 4, 5, 6, spec.vocab_size - 1]),
    ):
        run_step(handle, batch, np.array(tokens, np.int32), logits.inside, seconds)
    close_program(handle)
    for memory in [logits, *states]:
        memory.check()
    np.testing.assert_array_equal(weights, before)
    return True


def changed(value: Any, draw: Any) -> Any:
    """Return a JSON value with something in it replaced, left out or doubled."""
    if isinstance(value, dict):
        key = draw(st.sampled_from(list(value)))
        return value | {key: changed(value[key], draw)}
    if isinstance(value, list) and value:
        index = draw(st.integers(0, len(value) - 1))
        what = draw(st.sampled_from(["change"] * 8 + ["drop", "double"]))
        new = {"drop": [], "double": [value[index]] * 2}.get(what)
        new = [changed(value[index], draw)] if new is None else new
        return [*value[:index], *new, *value[index + 1 :]]
    if isinstance(value, str):
        return draw(st.sampled_from([*numbers(), "\u20ac" * 200]))
    if isinstance(value, float):
        return draw(st.floats())
    return draw(st.none() | NUMBERS | WORDS)


def test_a_changed_program_is_refused_or_runs_in_its_own_memory(case: Case) -> None:
    tally = {False: 0, True: 0}

    @SETTINGS
    @given(st.data())
    def check(data: st.DataObject) -> None:
        part = data.draw(st.sampled_from(["operations"] * 3 + ["buffers", "tensors", "states"]))
        value = case.whole[part]
        for _ in range(data.draw(st.integers(1, 2))):
            value = changed(value, data.draw)
        try:
            program = Program.model_validate(case.whole | {part: value})
        except ValueError:
            return
        tally[is_run(spec_of(program, case.weights), case.weights)] += 1

    check()
    assert tally[True] > 5 and tally[False] > 30, tally


def test_any_word_of_a_structure_may_be_anything(case: Case) -> None:
    """Past the parser: numbers of no kind, negative counts, offsets of 64 bits."""
    tally = {False: 0, True: 0}

    @SETTINGS
    @given(st.data())
    def check(data: st.DataObject) -> None:
        spec = spec_of(case.program, case.weights)
        kind, items, count = data.draw(
            st.sampled_from(
                [
                    (COp, spec.ops, spec.num_ops),
                    (CBuffer, spec.buffers, spec.num_buffers),
                    (CTensor, spec.tensors, spec.num_tensors),
                ]
            )
        )
        size = CTensor.name.offset if kind is CTensor else ctypes.sizeof(kind)
        item = items[data.draw(st.integers(0, count - 1))]
        words = (ctypes.c_int32 * (size // 4)).from_address(ctypes.addressof(item))
        words[data.draw(st.integers(0, len(words) - 1))] = data.draw(NUMBERS | WORDS)
        tally[is_run(spec, case.weights)] += 1

    check()
    assert tally[True] > 5 and tally[False] > 30, tally


@pytest.mark.parametrize("name", ["num_ops", "num_buffers", "num_tensors", "num_states"])
@pytest.mark.parametrize("number", [-(1 << 31), -1, (1 << 31) - 1])
def test_counts_and_limits_are_refused_before_they_are_used(
    case: Case, name: str, number: int
) -> None:
    spec = spec_of(case.program, case.weights)
    setattr(spec, name, number)
    assert not is_run(spec, case.weights)


@pytest.mark.parametrize(
    "name", ["logits", "vocab_size", "max_slots", "max_seq_len", "max_tokens", "num_threads"]
)
@pytest.mark.parametrize("number", [-(1 << 31), -1, (1 << 31) - 1])
def test_numbers_of_a_program_are_refused_out_of_range(case: Case, name: str, number: int) -> None:
    spec = spec_of(case.program, case.weights)
    setattr(spec, name, number)
    assert not is_run(spec, case.weights)


@pytest.mark.parametrize(
    ("what", "sizes"),
    [("tensors", ("rows", "columns")), ("buffers", ("width",)), ("states", ("slot_elements",))],
)
def test_nothing_may_be_smaller_than_it_is_used(
    case: Case, what: str, sizes: tuple[str, ...]
) -> None:
    """Each tensor, buffer and state is there for an operation, which takes it whole."""
    for index in range(getattr(spec_of(case.program, case.weights), f"num_{what}")):
        for size in sizes:
            spec = spec_of(case.program, case.weights)
            item = getattr(spec, what)[index]
            if getattr(item, size) == 1:
                continue  # a vector has one row; an operand that nothing uses has one column
            setattr(item, size, getattr(item, size) - 1)
            assert not is_run(spec, case.weights), (what, index, size)


def test_a_linear_s_last_panel_has_room(case: Case) -> None:
    """Kernels write 16 columns at a time: 15 of them at column 1 of 16 would end one past."""
    spec = spec_of(case.program, case.weights)
    linear = next(op for op in spec.ops[: spec.num_ops] if op.kind == numbers()["linear"])
    linear.target.width -= linear.target.width % 16 == 0
    linear.target.column = 16 - linear.target.width % 16
    spec.tensors[linear.tensors[0]].rows = linear.target.width
    spec.buffers[linear.target.buffer].width = linear.target.column + linear.target.width
    with pytest.raises(ArtefactError, match="its last panel does not fit the target"):
        check_program(spec, Path("folder"))
