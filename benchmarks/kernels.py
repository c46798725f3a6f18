"""Compares forms of two kernels of the native step, in one process each, by turns.

Run: python benchmarks/kernels.py [bf16_products|state_passes]

Compiles benchmarks/kernels/NAME.cpp over the engine's own headers, with its flags for this CPU.
Times are of the thread, not of the clock: on a busy machine read ratios only.
"""

import os
import subprocess
import tempfile
from pathlib import Path

import click

from nemotrt.engines.backends.native.library.compiler import (
    AVX2_FLAGS,
    AVX512_FLAGS,
    FLAGS,
    SOURCES,
    find_compiler,
)
from nemotrt.engines.backends.native.library.library import InstructionSet, best_isa
from nemotrt.errors import EnvironmentUnfitError

KERNELS = Path(__file__).parent / "kernels"
NAMES = sorted(path.stem for path in KERNELS.glob("*.cpp"))
BF16 = "avx512_bf16"  # in /proc/cpuinfo


def flags_of(name: str) -> tuple[str, ...]:
    """Return the compiler's flags for this CPU; raise where it lacks what is compared."""
    wide = (InstructionSet.AVX512, InstructionSet.AMX)
    if best_isa() not in (InstructionSet.AVX2, *wide):
        raise EnvironmentUnfitError("the kernels compared are those for AVX2 and AVX-512.")
    is_wide = best_isa() in wide
    if name == "bf16_products":
        if not is_wide or BF16 not in Path("/proc/cpuinfo").read_text():
            raise EnvironmentUnfitError("this CPU has no AVX512-BF16.")
        return (*AVX512_FLAGS, "-mavx512bf16")
    return AVX512_FLAGS if is_wide else AVX2_FLAGS


def compare(name: str) -> None:
    """Compile and run one comparison."""
    command, flags = find_compiler(), flags_of(name)
    if command is None:
        raise EnvironmentUnfitError("there is no C++ compiler.")
    with tempfile.TemporaryDirectory() as folder:
        program = os.path.join(folder, name)
        parts = (*FLAGS, *flags, f"-I{SOURCES}", "-Wno-unused", str(KERNELS / f"{name}.cpp"))
        subprocess.run([*command, *parts, "-o", program], check=True)
        subprocess.run([program], check=True)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
def main(names: tuple[str, ...]) -> None:
    """Print one JSON object a line."""
    for name in names or NAMES:
        try:
            compare(name)
        except EnvironmentUnfitError as error:
            click.echo(f"{name}: {error.message}", err=True)


if __name__ == "__main__":
    main()
