"""Programs are refused, in Python and in the library, before they can read or write astray."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.binding import (
    STATE_FORMATS,
    close_program,
    open_program,
    run_step,
)
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.backends.native.program.packing import panels
from nemotrt.engines.backends.native.program.program import (
    PROGRAM_FILE,
    WEIGHTS_FILE,
    OperationKind,
    Program,
    read_program,
    round_up,
)
from nemotrt.engines.backends.native.program.program_check import SIGNATURES, fault_of
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.errors import ArtefactError
from support import reference

LIMITS = Limits(max_batch_size=2, max_seq_len=32, chunk_tokens=8)
FUZZ_CASES = 400
NUMBERS = (-1, 0, 1, 2, 3, 5, 16, 17, 48, 64, 97, 4096, 1 << 20, (1 << 31) - 1)


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


def test_every_kind_has_a_signature_and_the_program_is_sound(folder: Path) -> None:
    assert set(SIGNATURES) == set(OperationKind)
    size = (folder / WEIGHTS_FILE).stat().st_size
    assert fault_of(read_program(folder), size) is None
    assert "lies outside" in str(fault_of(read_program(folder), size // 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"operations": ()}, "no operations"),
        ({"logits": 0}, "can't hold the logits"),
        ({"logits": 9}, "no buffer 9"),
        ({"states": ()}, "a state past the last"),
    ],
)
def test_python_names_the_fault(folder: Path, change: dict[str, Any], message: str) -> None:
    program = read_program(folder).model_copy(update=change)
    assert message in str(fault_of(program, 1 << 40))


def test_blocks_of_scales_are_as_many_as_the_weight_s(folder: Path) -> None:
    """These weights have one block of inputs."""
    program = read_program(folder)
    tensors = [
        tensor.model_copy(update={"rows": 2}) if tensor.name.endswith("_scale") else tensor
        for tensor in program.tensors
    ]
    program = program.model_copy(update={"tensors": tuple(tensors)})
    assert "_scale has 2 blocks" in str(fault_of(program, 1 << 40))
    refused = run_unchecked(program, np.zeros(1 << 22, np.uint8))
    assert "2 blocks of scales" in str(refused)


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


def mutate(value: Any, rng: random.Random) -> Any:
    """Return a JSON value with one number somewhere in it replaced."""
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        return value | {key: mutate(value[key], rng)}
    if isinstance(value, list) and value:
        index = rng.randrange(len(value))
        return [*value[:index], mutate(value[index], rng), *value[index + 1 :]]
    return rng.choice(NUMBERS) if isinstance(value, int) else value


def test_the_library_survives_mutated_programs(folder: Path) -> None:
    """Past Python's checks: what the library opens, it also runs without harm."""
    rng = random.Random(5)
    whole = read_program(folder).model_dump(mode="json")
    weights = np.fromfile(folder / WEIGHTS_FILE, np.uint8)
    opened = 0
    for _ in range(FUZZ_CASES):
        part = rng.choice(["operations", "operations", "buffers", "tensors", "states"])
        changed = whole | {part: mutate(whole[part], rng)}
        try:
            program = Program.model_validate(changed)
        except ValueError:
            continue
        opened += run_unchecked(program, weights) is None
    assert opened, "no mutated program was worth running"


def test_what_python_accepts_the_library_accepts(folder: Path) -> None:
    """Python names every fault first, and refuses nothing that is sound."""
    rng = random.Random(11)
    whole = read_program(folder).model_dump(mode="json")
    weights = np.fromfile(folder / WEIGHTS_FILE, np.uint8)
    accepted = refused = 0
    for _ in range(2 * FUZZ_CASES):
        part = rng.choice(
            ["operations", "operations", "operations", "buffers", "tensors", "states"]
        )
        changed = whole | {part: mutate(whole[part], rng)}
        try:
            program = Program.model_validate(changed)
        except ValueError:
            continue
        if any(state.num_elements > 1 << 20 for state in program.states):
            continue
        if fault_of(program, weights.size) is None:
            assert run_unchecked(program, weights) is None
            accepted += 1
        else:
            refused += 1
    assert accepted > 10 and refused > 100, (accepted, refused)


def run_unchecked(program: Program, weights: np.ndarray) -> str | None:
    """Run a program that only the library checks; return why it refuses it."""
    sizes = [min(int(np.prod(state.shape)), 1 << 20) for state in program.states]
    states = [np.zeros((2, size), np.float32) for size in sizes]
    try:
        handle = open_program(
            program,
            [
                (size, state.ctypes.data, STATE_FORMATS[spec.format])
                for size, state, spec in zip(sizes, states, program.states, strict=True)
            ],
            weights=weights.ctypes.data,
            weights_bytes=weights.size,
            max_slots=2,
            max_tokens=8,
            num_threads=1,
            isa=0,
        )
    except ArtefactError as error:
        assert "refuses the program" in error.message
        return error.message
    logits = np.empty((2, round_up(program.vocab_size)), np.float32)
    seconds = np.zeros(len(program.operations))
    tokens = np.array([1, 2, 3, 4], np.int32)
    run_step(handle, [(1, 0, 3, 1), (0, 5, 1, 1)], tokens, logits, seconds)
    close_program(handle)
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
