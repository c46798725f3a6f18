"""The step on 64-bit ARM: cross-compiled, and run by qemu; no ARM machine was there."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.library.compiler import KERNEL_FLAGS, compile_library
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.tiny.models import TINY_MODELS
from support.aarch64 import Aarch64, aarch64
from support.arm_guest import LIMITS

GUEST = Path(__file__).parents[2] / "support/arm_guest.py"
CPUS = {"cortex-a72": "PORTABLE", "neoverse-n1": "PORTABLE NEON", "max": "PORTABLE NEON I8MM"}
# Of logits up to 17. Codes of inputs are rounded: a last bit before moves a code, and the logits.
TOLERANCE = {
    Precision.FP32: 1e-4,
    Precision.BF16: 1e-4,
    Precision.INT8_WO: 0.02,
    Precision.INT4_WO: 0.2,
}


@pytest.fixture(scope="module")
def machine() -> Aarch64:
    return aarch64()


@pytest.fixture(scope="module")
def library(machine: Aarch64, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arm") / "libstep.so"
    compile_library(path, machine.compiler())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines of each kind of weights, rows to draw from, and what this machine makes of them."""
    folder = tmp_path_factory.mktemp("engines")
    for precision in TOLERANCE:
        spec = BuildSpec("native", precision=precision, limits=LIMITS)
        build_engine(TINY_MODELS["tiny"], folder / f"engine-{precision}", spec)
    np.save(folder / "rows.npy", np.random.default_rng(3).normal(size=(6, 5000)).astype("f4") * 4)
    environment = {name: value for name, value in os.environ.items() if name != "QEMU_CPU"}
    subprocess.run([sys.executable, str(GUEST), str(folder)], check=True, env=environment)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("cpu", CPUS)
def test_an_arm_cpu_says_what_this_one_says(
    machine: Aarch64, library: Path, folder: Path, cpu: str
) -> None:
    told = machine.python([str(GUEST), str(folder)], cpu, library)
    assert told.split() == CPUS[cpu].split()
    found, here = np.load(folder / f"{cpu}.npz"), np.load(folder / "host.npz")
    for name in found.files:
        what, _, isa = name.rpartition(".")
        expected = here[f"{what}.PORTABLE"]
        if what == "tokens":  # a seed's tokens are the same on every CPU
            np.testing.assert_array_equal(found[name], expected)
            continue
        tolerance = TOLERANCE[Precision(what.removeprefix("engine-"))]
        np.testing.assert_allclose(found[name], expected, atol=tolerance, rtol=0, err_msg=isa)
        assert np.abs(expected).max() > 10


def test_each_kind_of_cpu_has_its_kernels_and_no_other() -> None:
    assert {machine: set(sets) for machine, sets in KERNEL_FLAGS.items()} == {
        "x86_64": {"avx2", "avx512"},
        "aarch64": {"neon", "i8mm"},
    }
