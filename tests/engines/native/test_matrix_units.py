"""Linears on AMX's tiles: over an emulation of their instructions, and on the CPU's own if any."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.library.compiler import compile_library, find_compiler
from nemotrt.engines.backends.native.library.library import (
    LIBRARY_VARIABLE,
    InstructionSet,
    available_isas,
)
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from support import reference

LIMITS = Limits(max_batch_size=3, max_seq_len=256, chunk_tokens=100)
# What else an engine with tiles computes with: the emulation is compiled on AVX2's operands.
OPERANDS = {"emulated": InstructionSet.AVX2, "real": InstructionSet.AVX512}
# Pieces on either side of a tile's 16 tokens and of two tiles, with more and fewer threads.
COMPARE = """
import sys
from pathlib import Path
import numpy as np
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.backends.native.library.library import InstructionSet, best_isa
from nemotrt.engines.runtime.engine import Feed, Limits

limits = Limits(3, 256, 100)
assert best_isa() is InstructionSet.AMX
tokens = np.random.default_rng(0).integers(0, 96, 200).tolist()
found = []
for isa, threads, sizes in (
    (InstructionSet[sys.argv[3]], 1, [100, 100]),
    (InstructionSet.AMX, 2, [100, 99, 1]),
    (InstructionSet.AMX, 1, [100, 13, 45, 42]),
    (InstructionSet.AMX, 3, [16, 17, 33, 32, 12, 1, 89]),
):
    engine = NativeEngine(Path(sys.argv[1]), limits, threads, isa)
    slot, done, rows = engine.allocate(), 0, []
    for size in sizes:
        rows.append(engine.step([Feed(slot, tokens[done : done + size], size)]).copy())
        done += size
    found.append(np.concatenate(rows))
    engine.close()
assert np.isfinite(found[0]).all()
if sys.argv[2] == "int8-wo":
    np.testing.assert_array_equal(found[1], found[0])
else:  # other sums: their difference is that of two orders of float32
    difference = np.sqrt(np.mean((found[1] - found[0]) ** 2)) / found[0].std()
    assert 0 < difference < 3e-6, difference
for rows in found[2:]:
    np.testing.assert_array_equal(rows, found[1])
print("the same bits")
"""
is_able = InstructionSet.AVX2 in available_isas() and platform.system() == "Linux"


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library with AMX's instructions in C++, on AVX2's operands."""
    library = tmp_path_factory.mktemp("amx") / "libstep.so"
    header = Path(__file__).with_name("amx_emulation.h")
    command = find_compiler()
    assert command is not None
    compile_library(library, command, (f'-DNEMOTRT_AMX_EMULATION="{header}"',))
    return library


@pytest.fixture
def tiles(request: pytest.FixtureRequest) -> tuple[dict[str, str], str]:
    """Return the variables of a process that has the tiles of `request.param`, and its operands."""
    variables = {}
    if request.param == "emulated":
        variables[LIBRARY_VARIABLE] = str(request.getfixturevalue("emulated"))
    return variables, OPERANDS[request.param].name


@pytest.mark.parametrize(
    "tiles",
    [
        pytest.param(
            "emulated",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not is_able, reason="the emulation is of AVX2's operands"),
            ],
        ),
        pytest.param(
            "real",
            marks=pytest.mark.skipif(
                InstructionSet.AMX not in available_isas(), reason="this CPU has no tiles"
            ),
        ),
    ],
    indirect=True,
)
@pytest.mark.parametrize("precision", [Precision.INT8_WO, Precision.BF16])
@pytest.mark.parametrize("family", ["nemotron_h", "qwen3"])
def test_tiles_have_the_same_bits_in_any_pieces(
    tiles: tuple[dict[str, str], str], family: str, precision: Precision, tmp_path: Path
) -> None:
    """Widths that fill no tile, more inputs than one block sums, and linears that add.

    Sums of int8 are also the other kernels' to the bit.
    """
    sizes = {"hidden_size": 2320, "intermediate_size": 4200}
    if precision is Precision.BF16:  # whose blocks are shorter
        sizes = {"hidden_size": 592, "intermediate_size": 1060}
    model = (
        reference.nemotron_h("M-*-")
        if family == "nemotron_h"
        else reference.qwen3(1, head_dim=16, **sizes)
    )
    reference.save(model, tmp_path / "c")
    spec = BuildSpec("native", precision=precision, limits=LIMITS)
    build_engine(tmp_path / "c", tmp_path / "e", spec)
    variables, operands = tiles
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, str(tmp_path / "e"), precision, operands],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "the same bits\n", done.stderr
