"""Programs are refused, field by field and as a whole, before anything is read or written."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.binding import (
    check_program,
    run_step,
)
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.backends.native.program.options import StateFormat
from nemotrt.engines.backends.native.program.packing import panels
from nemotrt.engines.backends.native.program.program import (
    PROGRAM_FILE,
    WEIGHTS_FILE,
    BufferFormat,
    OperationKind,
    Program,
    TensorKind,
    read_program,
)
from nemotrt.engines.backends.native.structures import numbers, program_spec
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.errors import ArtefactError
from support import reference

LIMITS = Limits(max_batch_size=2, max_seq_len=32, chunk_tokens=8)


@pytest.fixture(scope="module", params=["nemotron_h", "qwen3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("p")
    model = reference.nemotron_h("M-*") if request.param == "nemotron_h" else reference.qwen3(1)
    reference.save(model, tmp / "c")
    spec = BuildSpec("native", precision=Precision.INT8_WO, limits=LIMITS)
    build_engine(tmp / "c", tmp / "e", spec)
    return tmp / "e"


def test_panels_hold_the_weight() -> None:
    """Row 17, input 5 of an int8 weight: panel 1, pair 2, row 1, second of the pair."""
    weight = np.arange(20 * 6, dtype=np.int8).reshape(20, 6)
    packed = panels(weight)
    assert packed.shape == (2, 8, 16, 2)
    assert packed[1, 2, 1, 1] == weight[17, 5]
    assert not packed[1, :, 4:].any() and not packed[:, 3:].any()
    floats = panels(weight.astype(np.float32))
    assert floats.shape == (2, 16, 16, 1)
    assert floats[1, 5, 1, 0] == weight[17, 5]


def test_the_library_has_the_words_of_program_json_and_no_others() -> None:
    """Each number comes from the library; a name that it lacks, or has alone, would be a fault."""
    words = {*OperationKind, *TensorKind, *BufferFormat, *StateFormat, "tokens", "sequences"}
    assert set(numbers()) == {str(word) for word in words}


def test_the_program_is_sound_and_its_weights_are_inside_the_file(folder: Path) -> None:
    size = (folder / WEIGHTS_FILE).stat().st_size
    assert refusal(read_program(folder), size) is None
    assert "lies outside" in str(refusal(read_program(folder), size // 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operations": ()}, "no operations"),
        ({"logits": 0}, "can't hold the logits"),
        ({"logits": 9}, "no buffer 9"),
        ({"states": ()}, "a state past the last"),
    ],
)
def test_the_fault_is_named(folder: Path, change: dict[str, Any], message: str) -> None:
    program = read_program(folder).model_copy(update=change)
    assert message in str(refusal(program, 1 << 40))


def changed(program: Program, kind: OperationKind, **fields: Any) -> tuple[int, Program]:
    """Return the first operation of a kind, and the program with other fields in it."""
    operations = list(program.operations)
    index = next(i for i, operation in enumerate(operations) if operation.kind is kind)
    operations[index] = operations[index].model_copy(update=fields)
    return index, program.model_copy(update={"operations": tuple(operations)})


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        ("embed", {"tensors": (None,)}, "tensor 0 is missing"),
        ("embed", {"tensors": (9999,)}, "it names a tensor past the last, "),
        ("embed", {"rows": "sequences"}, "it works on tokens"),
        ("norm", {"reals": (float("nan"),)}, "it has a number that is not finite"),
        ("norm", {"reals": ()}, "it has 0 reals, expected 1"),
        ("linear", {"sizes": ()}, "it has 0 sizes, expected 1"),
        ("linear", {"tensors": (0,)}, "it has 1 tensors, expected 2"),
        ("attention", {"sizes": (4, 3, 16)}, "4 heads share 3"),
        ("attention", {"sizes": (4, 0, 16)}, "size 1 is 0"),
        ("attention", {"states": (0, 0)}, " is the state of operation "),
        ("last_token", {"sources": ()}, "it has 0 sources, expected 1"),
    ],
)
def test_the_operation_is_named(
    folder: Path, kind: str, fields: dict[str, Any], reason: str
) -> None:
    if "states" in fields:  # its own first one, twice
        own = next(x for x in read_program(folder).operations if x.kind == kind)
        fields = {"states": (own.states[0],) * 2}
    index, program = changed(read_program(folder), OperationKind(kind), **fields)
    fault = str(refusal(program, 1 << 40))
    assert f"operation {index} ({kind}): " in fault and reason in fault


def test_linears_that_run_side_by_side_write_columns_of_their_own(folder: Path) -> None:
    """Queries, keys and values are linears of one operand; the third may not hit the first."""
    program = read_program(folder)
    kinds = [operation.kind for operation in program.operations]
    first = kinds.index(OperationKind.ATTENTION) - 3
    assert set(kinds[first : first + 3]) == {OperationKind.LINEAR}
    operations = list(program.operations)
    view = operations[first + 2].target.model_copy(
        update={"column": operations[first].target.column}
    )
    operations[first + 2] = operations[first + 2].model_copy(update={"target": view})
    fault = refusal(program.model_copy(update={"operations": tuple(operations)}), 1 << 40)
    assert f"operation {first + 2} (linear): it overlaps a linear before it" in str(fault)


def test_blocks_of_scales_are_as_many_as_the_weight_s(folder: Path) -> None:
    """These weights have one block of inputs."""
    program = read_program(folder)
    tensors = [
        tensor.model_copy(update={"rows": 2}) if tensor.name.endswith("_scale") else tensor
        for tensor in program.tensors
    ]
    program = program.model_copy(update={"tensors": tuple(tensors)})
    assert "_scale has 2 blocks of scales" in str(refusal(program, 1 << 40))


def test_a_state_s_size_is_no_number_that_wraps(folder: Path) -> None:
    """2^64 elements more are as many in 64 bits."""
    program = read_program(folder)
    for index, state in enumerate(program.states):
        shape = (1 << 30, 1 << 30, 16)
        assert math.prod(shape) == 1 << 64
        states = list(program.states)
        states[index] = state.model_copy(update={"shape": shape})
        fault = refusal(program.model_copy(update={"states": tuple(states)}), 1 << 40)
        assert f"state {index} ({state.name}) has" in str(fault)


def test_a_state_s_name_and_shape_are_its_own_affair(folder: Path, tmp_path: Path) -> None:
    """States of one name are two states, and what a slot held is gone whatever they are called."""
    for name in (PROGRAM_FILE, WEIGHTS_FILE):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    program = read_program(folder)
    states = [
        state.model_copy(update={"name": "k_", "shape": (1,) * 70 + (state.num_elements,)})
        for state in program.states
    ]
    changed = program.model_copy(update={"states": tuple(states)})
    (tmp_path / PROGRAM_FILE).write_text(changed.model_dump_json())
    engine, plain = NativeEngine(tmp_path, LIMITS, 1), NativeEngine(folder, LIMITS, 1)
    feed = [Feed(engine.allocate(), [1, 2, 3])]
    plain.allocate()
    np.testing.assert_array_equal(engine.step(feed), plain.step(feed))
    engine.release(feed[0].slot)
    assert not any(state.array.any() for state in engine._states.buffers)


def test_a_damaged_engine_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:4096])
    for text, message in [
        ("{", "JSON"),
        ("{}", "vocab_size"),
        ((folder / PROGRAM_FILE).read_text(), "lies outside"),
    ]:
        (tmp_path / PROGRAM_FILE).write_text(text)
        with pytest.raises(ArtefactError, match=message):
            NativeEngine(tmp_path, LIMITS, 1)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(ArtefactError, match="can't be mapped"):
        NativeEngine(tmp_path, LIMITS, 1)
    with pytest.raises(ArtefactError, match="another max_seq_len"):
        NativeEngine(folder, Limits(2, 64, 8), 1)


def refusal(program: Program, weights_bytes: int) -> str | None:
    """Why the library refuses a program, which it reads nothing else for."""
    weights = np.zeros(1, np.uint8)
    spec = program_spec(
        program,
        weights=weights.ctypes.data,
        weights_bytes=weights_bytes,
        max_slots=2,
        max_tokens=8,
        num_threads=1,
        isa=0,
    )
    try:
        check_program(spec, Path("folder"))
    except ArtefactError as error:
        assert error.message.startswith("folder: the native step refuses the program: ")
        return error.message
    return None


def test_the_library_checks_the_batch(folder: Path) -> None:
    """The engine checks feeds first; the library does not rely on it."""
    engine = NativeEngine(folder, LIMITS, 1)
    logits = np.empty((2, 96), np.float32)
    for sequence, token, message in [
        ((2, 0, 1, 1), 1, "slot"),
        ((-1, 0, 1, 1), 1, "slot"),
        ((0, 32, 1, 1), 1, "max_seq_len"),
        ((0, -1, 1, 1), 1, "max_seq_len"),
        ((0, 0, 2, 1), 1, "tokens"),
        ((0, 0, 1, 1), 96, "token"),
        ((0, 0, 1, 1), -1, "token"),
    ]:
        with pytest.raises(Exception, match=message):
            run_step(
                engine._handle, [sequence], np.array([token], np.int32), logits, engine.seconds
            )
    slot = engine.allocate()
    assert engine.step([Feed(slot, [1])]).shape == (1, 96)
