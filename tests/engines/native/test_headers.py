"""What Python and the C++ and CUDA headers both tell is the same: numbers, structures, enums."""

import ctypes
import re
from pathlib import Path

import pytest

from nemotrt.engines.backends.native import structures
from nemotrt.engines.backends.native.library import draw, machine_limits
from nemotrt.engines.backends.native.library.library import InstructionSet
from nemotrt.engines.backends.native.program import program
from nemotrt.engines.backends.tensorrt.draws import tables

BACKENDS = Path(structures.__file__).parents[1]
STEP = "".join(
    (BACKENDS / "native" / "step" / f"{name}.h").read_text() for name in ("program", "sampling")
)
TURN = (BACKENDS / "tensorrt" / "draws" / "kernels" / "turn.h").read_text()
SIZES = {
    **{"int32_t": 4, "int": 4, "float": 4, "int64_t": 8, "uint64_t": 8, "u64": 8, "double": 8},
    "View": ctypes.sizeof(structures.CView),
}
STRUCTURES = {
    "View": structures.CView,
    "Op": structures.COp,
    "BufferSpec": structures.CBuffer,
    "TensorSpec": structures.CTensor,
    "StateSpec": structures.CState,
    "ProgramSpec": structures.CProgram,
    "Lora": structures.CLora,
    "Sequence": structures.CSequence,
    "Batch": structures.CBatch,
    "Draw": draw.CDraw,
    "DrawBatch": draw.CDrawBatch,
    "Turn": tables.CTurn,
    "Result": tables.CResult,
    "Tables": tables.CTables,
}


def constant(header: str, name: str) -> int:
    found = re.search(rf"constexpr int {name} = (\d+);", header)
    assert found is not None, name
    return int(found[1])


def enum(header: str, name: str) -> dict[str, int]:
    found = re.search(rf"enum {name} : \w+ \{{(.*?)\}};", header)
    assert found is not None, name
    pairs = [item.partition("=") for item in found[1].split(",")]
    return {
        key.strip(): int(value) if value else number for number, (key, _, value) in enumerate(pairs)
    }


def fields(header: str, name: str) -> list[tuple[str, int]]:
    """Return each field of a struct with its bytes."""
    body = re.search(rf"struct {name} \{{\n(.*?)^\}};", header, re.DOTALL | re.MULTILINE)
    assert body is not None, name
    text = re.sub(r"//.*", "", body[1]).split("__device__")[0]
    found = []
    for line in filter(None, map(str.strip, text.split(";"))):
        words, *others = line.removeprefix("const ").replace("long long", "int64_t").split(",")
        kind, _, first = words.rpartition(" ")
        for item in (first, *others):
            label, _, count = item.strip().partition("[")
            size = 8 if "*" in kind else SIZES[kind.removeprefix("unsigned ")]
            found.append((label, size * (constant(header, count.rstrip("]")) if count else 1)))
    return found


@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_is_the_header_s(name: str) -> None:
    kind = STRUCTURES[name]
    header = TURN if name in ("Turn", "Result", "Tables") else STEP
    own = [(field, getattr(kind, field).size) for field, *_ in kind._fields_]
    assert own == fields(header, name)


@pytest.mark.parametrize(
    "name",
    [*(f"MAX_{part.upper()}" for part in structures.PARTS), "PANEL", "DEPTH_BLOCK"],
)
def test_a_program_s_numbers_are_the_header_s(name: str) -> None:
    assert getattr(program, name) == constant(STEP, name)


def test_enums_are_the_headers() -> None:
    assert enum(STEP, "Isa") == {f"ISA_{item.name}": item.value for item in InstructionSet}
    statuses = {item.name: item.value for item in draw.DrawStatus}
    assert enum(STEP, "DrawStatus") == enum(TURN, "Status") == statuses
    probes = enum(STEP, "Probe")
    assert probes.pop("NUM_PROBES") == len(probes)
    own = {f"PROBE_{name}": getattr(machine_limits, name) for name in ("READ", "UPDATE", "FLOAT")}
    assert probes == own | {"PROBE_INT16": machine_limits.INT16}
    edits = {name: getattr(tables, name) for name in ("MASKED", "SEEN", "COUNTED", "BIASED")}
    assert enum(TURN, "Edits") == edits


def test_the_samplers_blocks_are_the_headers() -> None:
    assert constant(STEP, "SAMPLING_BLOCK") == draw.BLOCK
    assert constant(TURN, "SLICE") == tables.SLICE
    assert constant(TURN, "MAX_SLICES") * tables.SLICE > tables.MAX_VOCAB
