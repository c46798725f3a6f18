"""Finds the compiled step, or compiles it into the user's cache at first use."""

import ctypes
import functools
import os
import subprocess
from enum import IntEnum
from pathlib import Path

from nemotrt.engines.backends.native.library.compiler import (
    LIBRARY_FILE,
    compile_library,
    find_compiler,
    source_hash,
)
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.files.user_cache import check_loads, user_cache, usual_cache

ERROR_BYTES = 512  # of an error's text from the library
LIBRARY_VARIABLE = "NEMOTRT_NATIVE_LIBRARY"  # a library to use as it is
INSTALLED = Path(__file__).parents[1] / LIBRARY_FILE  # where the build hook puts it
# "half to a third": make bench-cpu, 2-core Zen 5, 2026-11
LOSS = (
    "the native engine can't run here; --backend onnxruntime does, at half to a third of its speed"
)
NO_COMPILER = (
    f"no compiled step and no C++ compiler (c++, g++ or clang++): {LOSS}. "
    "Install one, such as g++ (apt-get install g++)."
)


class InstructionSet(IntEnum):
    """Which of the compiled kernels run; `auto` takes the last that the CPU has.

    AVX2 to AMX are of x86-64, NEON and I8MM of 64-bit ARM.
    """

    AUTO = 0
    PORTABLE = 1
    AVX2 = 2  # with FMA and F16C
    AVX512 = 3  # F, BW, DQ, VL, VNNI
    AMX = 4  # AVX512, and tiles for linears of bf16, and of int8 for many tokens
    NEON = 5  # of ARM, with dot products of bytes
    I8MM = 6  # NEON, and products of int8 matrices


@functools.cache
def load_library() -> ctypes.CDLL:
    """Return the library, compiled if need be.

    Raises:
        EnvironmentUnfitError: there is none and no C++ compiler, or it can't be compiled or loaded.
    """
    path = library_path()
    try:
        library = ctypes.CDLL(str(path))
        library.nemotrt_source.restype = ctypes.c_char_p
        found = library.nemotrt_source().decode()
    except (OSError, AttributeError) as error:
        raise EnvironmentUnfitError(f"{path} can't be loaded: {error}; {LOSS}.") from error
    if found != source_hash():
        raise EnvironmentUnfitError(f"{path} was made from other sources ({found}); delete it.")
    return library


def best_isa() -> InstructionSet:
    """Return the best set that this CPU, its system and the library have: `auto` runs it.

    Raises:
        EnvironmentUnfitError: the library can't be compiled or loaded.
    """
    return InstructionSet(load_library().nemotrt_best_isa())


def available_isas() -> list[InstructionSet]:
    """Return the sets that run here, the portable one first.

    Raises:
        EnvironmentUnfitError: the library can't be compiled or loaded.
    """
    library = load_library()
    return [isa for isa in InstructionSet if library.nemotrt_has_isa(isa)]


def library_path() -> Path:
    """Return the library's path: named by the environment, installed, cached, or compiled now."""
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        return Path(named)
    if INSTALLED.is_file():
        return INSTALLED
    cached = _cached() or user_cache() / _cache_name()
    _check_loads(cached if cached.is_file() else user_cache())
    if not cached.is_file():
        _compile(cached)
    return cached


def check_available() -> None:
    """Raise EnvironmentUnfitError unless the library loads, or can be compiled and loaded."""
    if LIBRARY_VARIABLE in os.environ or INSTALLED.is_file() or _cached() is not None:
        load_library()
    elif find_compiler() is None:
        raise EnvironmentUnfitError(NO_COMPILER)
    else:
        _check_loads(user_cache())


def _check_loads(place: Path) -> None:
    """Raise EnvironmentUnfitError where a library of the user's cache can't be loaded."""
    try:
        check_loads(place)
    except EnvironmentUnfitError as error:
        raise EnvironmentUnfitError(f"{error.message}; {LOSS}.") from error


def _cached() -> Path | None:
    """Return the library in the user's cache, which may be read-only; None if it is not there."""
    usual = usual_cache()
    path = None if usual is None else usual / _cache_name()
    return path if path is not None and path.is_file() else None


def _cache_name() -> Path:
    """Return the library's path in a cache."""
    return Path("native") / source_hash() / LIBRARY_FILE


def _compile(target: Path) -> None:
    """Compile the library into the cache."""
    command = find_compiler()
    if command is None:
        raise EnvironmentUnfitError(NO_COMPILER)
    try:
        compile_library(target, command)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()[-1:] or ["no output"]
        raise EnvironmentUnfitError(
            f"{command[0]} can't compile the step: {last[0]}; {LOSS}."
        ) from error
    except OSError as error:
        raise EnvironmentUnfitError(
            f"{target.parent} can't be written: {error.strerror}; {LOSS}. Set XDG_CACHE_HOME."
        ) from error
