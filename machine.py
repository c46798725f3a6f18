"""What this machine is beside its GPUs: its processor, its memory, and the room that it has."""

import os
import shutil
from pathlib import Path

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.files.memory import memory_bytes
from nemotrt.files.user_cache import check_loads, usual_path
from nemotrt.needs import Ability

FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "f16c")
# A Nemotron-Nano-9B-v2: 8.89 billion parameters of two bytes.
CHECKPOINT_BYTES = 17_776_454_656
# Source: docs/measurements/native.md, its peak on the CPU in int8-wo, measured.
CPU_ENGINE_BYTES = 9_990_000_000
CACHE_BYTES = 1 << 30  # chosen: kernels, timings and measurements of a few engines


def cpu_flags() -> tuple[str, ...]:
    """Return the vector extensions that matter, of those that the CPU has."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return ()
    lines = path.read_text().splitlines()
    flags = next((line.split(":", 1)[1].split() for line in lines if "flags" in line), [])
    return tuple(flag for flag in FLAGS if flag in flags)


def rooms() -> tuple[Ability, ...]:
    """Return what hangs on disk space and memory; a check raises OSError where it is not told."""
    return (
        Ability("keep what is compiled in the cache", check=_check_cache),
        Ability("hold a 9B checkpoint in bf16 in this folder", check=_check_folder),
        Ability("open the 9B in int8-wo on the CPU", check=_check_memory),
    )


def _check_cache() -> None:
    """Raise EnvironmentUnfitError where the user's cache can't be written, or is full."""
    path = usual_path()
    if path is None:
        raise EnvironmentUnfitError("this user has no home: set XDG_CACHE_HOME")
    place = next(folder for folder in (path, *path.parents) if folder.exists())
    if not os.access(place, os.W_OK):
        raise EnvironmentUnfitError(f"{place} can't be written: set XDG_CACHE_HOME")
    check_loads(place)
    _check_free(place, CACHE_BYTES, "set XDG_CACHE_HOME to a larger disk")


def _check_folder() -> None:
    """Raise EnvironmentUnfitError where the working folder has no room for the 9B."""
    _check_free(Path.cwd(), CHECKPOINT_BYTES, "work in a folder of a larger disk")


def _check_free(place: Path, wanted: int, cure: str) -> None:
    """Raise EnvironmentUnfitError unless the disk of a folder has so many bytes free."""
    free = shutil.disk_usage(place).free
    if free < wanted:
        raise EnvironmentUnfitError(
            f"{place} has {gib(free)} free, of the {gib(wanted)} that are wanted: {cure}"
        )


def _check_memory() -> None:
    """Raise EnvironmentUnfitError where the 9B does not fit the memory."""
    has = memory_bytes()
    if has < CPU_ENGINE_BYTES:
        raise EnvironmentUnfitError(
            f"there are {gib(has)} of memory, and {gib(CPU_ENGINE_BYTES)} are wanted: take a "
            "larger machine, or give the container more"
        )


def gib(num_bytes: int) -> str:
    """Return a size in words."""
    return f"{num_bytes / 2**30:.1f} GiB"
