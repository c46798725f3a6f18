"""Compiles the step's sources into a shared library with the system's C++ compiler.

Standard library only: the build hook runs this file before the package is installed.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "step"
LIBRARY_FILE = "libnemotrt_step.so"
FLAGS = (
    "-std=gnu++17",
    "-O3",
    "-fPIC",
    "-pthread",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-fno-tree-loop-distribute-patterns",  # else the kernels' accumulators go to the stack
    "-Wno-psabi",
)
AVX2_FLAGS = ("-mavx2", "-mfma", "-mf16c")
SAMPLING_FLAGS = ("-ffp-contract=off",)  # a seed's tokens are the same on every CPU
AMX_FLAGS = ("-mamx-tile", "-mamx-int8", "-mamx-bf16")  # of GCC 11 and clang 12 on
NEON_FLAGS = ("-march=armv8.2-a+dotprod",)
I8MM_FLAGS = ("-march=armv8.2-a+dotprod+i8mm",)
AVX512_FLAGS = (*AVX2_FLAGS, *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl", "vnni")))


# Of each kind of CPU: the instruction sets that kernels are compiled for, beside the portable one.
KERNEL_FLAGS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {"avx2": AVX2_FLAGS, "avx512": AVX512_FLAGS},
    "aarch64": {"neon": NEON_FLAGS, "i8mm": I8MM_FLAGS},
}


def find_compiler() -> list[str] | None:
    """Return the C++ compiler's command, from CXX or the usual names; None without one."""
    for command in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        try:
            words = shlex.split(command)
        except ValueError:  # a quote that is not closed
            continue
        if words and shutil.which(words[0]):
            return words
    return None


def source_hash() -> str:
    """Return the digest of all sources: a library says which it was made from."""
    digest = hashlib.sha256()
    for path in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]):
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def compile_library(target: Path, command: list[str], extra_flags: tuple[str, ...] = ()) -> None:
    """Write the library to `target`, whole or not at all.

    Raises:
        subprocess.CalledProcessError: the compiler failed; its output is in `stderr`.
        OSError: the compiler or the target's folder can't be used.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".compiling-") as name:
        folder = Path(name)
        units = [_unit(name, folder) for name in ("engine", "isa", "sampler", "validate")]
        machine = _machine(command)
        for source in ("kernels", "probe", "sampling"):
            own = SAMPLING_FLAGS if source == "sampling" else ()
            units.append(_unit(source, folder, "portable", *own))
            for isa, isa_flags in KERNEL_FLAGS.get(machine, {}).items():
                units.append(_unit(source, folder, isa, *isa_flags, *own))
        if machine == "x86_64":
            tiles = AMX_FLAGS if _takes(command, AMX_FLAGS) else ()
            units.append(_unit("matrix", folder, "avx2", *AVX2_FLAGS))
            units.append(_unit("matrix", folder, "avx512", *AVX512_FLAGS, *tiles))
        flags = [*FLAGS, *extra_flags]
        with ThreadPoolExecutor(len(units)) as pool:
            list(pool.map(lambda unit: _run([*command, *flags, *unit]), units))
        objects = [str(path) for path in sorted(folder.glob("*.o"))]
        built = folder / LIBRARY_FILE
        _run([*command, *flags, "-shared", *objects, "-o", str(built)])
        built.replace(target)


def _machine(command: list[str]) -> str:
    """Return the kind of CPU that the compiler compiles for, in its own word."""
    told = subprocess.run([*command, "-dumpmachine"], capture_output=True, text=True, check=True)
    return told.stdout.partition("-")[0].strip()


def _takes(command: list[str], flags: tuple[str, ...]) -> bool:
    """Whether the compiler knows these flags."""
    probe = [*command, *flags, "-E", "-x", "c++", os.devnull]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def _run(command: list[str]) -> None:
    """Run a compiler; its failure is an exception with its output."""
    subprocess.run(command, check=True, capture_output=True, text=True)


def _unit(source: str, folder: Path, isa: str = "", *flags: str) -> list[str]:
    """Return the arguments that compile one source for one instruction set."""
    defines = [f'-DNEMOTRT_SOURCE="{source_hash()}"', *([f"-DNEMOTRT_ISA={isa}"] if isa else [])]
    out = folder / f"{source}{isa}.o"
    return [*defines, *flags, "-c", str(SOURCES / f"{source}.cpp"), "-o", str(out)]
