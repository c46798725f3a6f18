"""Builds llama.cpp's source package for this machine, and our shim.

What it makes stays in a cache folder, so that it is made once. It takes about five minutes of CPU.
A build that lacks kernels for what this CPU has is not measured.
"""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path

from compilers import Compiler, compiler
from llama_source import cache_folder, source_folder

HERE = Path(__file__).parent
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=ON",
    *(f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "EXAMPLES", "APP", "UI")),
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
)
SERVER_PARTS = ("COMMON", "TOOLS", "SERVER")
# What of a CPU llama.cpp has kernels for, by the kernel's word and by its own.
FEATURES = {
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "amx_int8": "AMX_INT8",
}
FILE_TYPES = {"Q4_0": 2, "Q4_K_M": 15}  # Source: llama.h, llama_ftype


def shim_library() -> Path:
    """Return the shim, built with llama.cpp if need be.

    Raises:
        OSError: cmake or the C++ compiler is missing.
        subprocess.CalledProcessError: the build failed.
    """
    source, made_by = source_folder(), compiler(cache_folder())
    build = cache_folder() / f"build-{made_by.word}"
    if not (build / "bin" / "libllama.so").exists():
        _build(build, made_by, "llama", has_server=False)
    shim = build / "libshim.so"
    text = HERE / "llama_shim.cpp"
    if not shim.exists() or shim.stat().st_mtime < text.stat().st_mtime:
        includes = [f"-I{source / part}" for part in ("include", "ggml/include")]
        place = [f"-L{build / 'bin'}", "-lllama", f"-Wl,-rpath,{build / 'bin'}"]
        flags = ["-O2", "-shared", "-fPIC", "-std=c++17"]
        links = made_by.links.split()
        command = [made_by.cxx, *flags, *includes, str(text), *place, *links, "-o", str(shim)]
        _run(command, made_by)
    _check(shim)
    return shim


def server_program() -> Path:
    """Return llama-server, built if need be (about ten minutes of CPU).

    Raises:
        OSError: cmake or the C++ compiler is missing.
        subprocess.CalledProcessError: the build failed.
    """
    made_by = compiler(cache_folder())
    build = cache_folder() / f"build-server-{made_by.word}"
    program = build / "bin" / "llama-server"
    if not program.exists():
        _build(build, made_by, "llama-server", has_server=True)
    return program


def _build(build: Path, made_by: Compiler, target: str, *, has_server: bool) -> None:
    """Build one target of llama.cpp."""
    print(f"building {target} of llama.cpp with {made_by.version}, once", file=sys.stderr)
    parts = [f"-DLLAMA_BUILD_{part}={'ON' if has_server else 'OFF'}" for part in SERVER_PARTS]
    parts += [f"-DCMAKE_C_COMPILER={made_by.c}", f"-DCMAKE_CXX_COMPILER={made_by.cxx}"]
    parts += [f"-DCMAKE_{kind}_LINKER_FLAGS={made_by.links}" for kind in ("SHARED", "EXE")]
    _run(["cmake", "-S", str(source_folder()), "-B", str(build), *OPTIONS, *parts], made_by)
    jobs = str(len(os.sched_getaffinity(0)))
    _run(["cmake", "--build", str(build), "--target", target, "-j", jobs], made_by)


def features(shim: Path) -> set[str]:
    """Return the kernels that a build has, in llama.cpp's own words."""
    library = ctypes.CDLL(str(shim))
    library.peer_features.restype = ctypes.c_char_p
    told: str = library.peer_features().decode()
    return set(re.findall(r"(\w+) = 1", told))


def _check(shim: Path) -> None:
    """Raise SystemExit if a build has no kernels for what this CPU has."""
    has = set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.M)[1].split())
    lacks = {FEATURES[word] for word in FEATURES if word in has} - features(shim)
    if lacks:
        raise SystemExit(
            f"llama.cpp was built without {', '.join(sorted(lacks))}, which this CPU has: "
            f"delete {shim.parent} and build it with another compiler (CXX=...)."
        )


def gguf(checkpoint: Path, kind: str, target: Path, *, has_vocabulary: bool = False) -> Path:
    """Return the checkpoint as a GGUF file of `kind`, converted if need be.

    F16 and Q8_0 are made by its converter, of the rest F16 is made first and then quantized.
    """
    if kind in FILE_TYPES and not target.exists():
        floats = gguf(checkpoint, "F16", target.with_suffix(".f16"), has_vocabulary=has_vocabulary)
        part = target.with_suffix(".part")
        library = ctypes.CDLL(str(shim_library()))
        library.peer_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int]
        if library.peer_quantize(str(floats).encode(), str(part).encode(), FILE_TYPES[kind]):
            raise SystemExit(f"llama.cpp can't quantize {checkpoint} to {kind}")
        floats.unlink()
        part.rename(target)
    if not target.exists():
        script = str(HERE / "llama_convert.py")
        part = target.with_suffix(".part")
        paths = [str(source_folder()), str(checkpoint), kind.lower(), str(part)]
        _run([sys.executable, script, *paths, *["vocabulary"] * has_vocabulary])
        part.rename(target)
    return target


def _run(command: list[str], made_by: Compiler | None = None) -> None:
    """Run a command; its output is shown only if it fails."""
    found = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | (made_by.environment if made_by else {}),
    )
    if found.returncode:
        print(found.stdout[-4000:], file=sys.stderr)
        found.check_returncode()
