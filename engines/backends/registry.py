"""The one list of backends, by name; an object is imported when it is asked for.

The order is the order of every table. The first backend runs on any CPU; of the CPU's, a later one
is the faster where it runs. The first GPU backend is what a build takes for a GPU.
"""

from importlib import import_module
from typing import Any

from nemotrt.engines.backends.protocol.backend import AnyBackend, CpuBackend
from nemotrt.errors import ConfigError, EnvironmentUnfitError, unknown_name

PACKAGE = "nemotrt.engines.backends"
# A name, and the folder whose backend.py has it as BACKEND, or the object itself.
BACKENDS: dict[str, str | AnyBackend] = {
    "onnxruntime": "onnxruntime",
    "native": "native",
    "tensorrt": "tensorrt",
    "tensorrt-llm": "tensorrt_llm",
    "edge-llm": "edge_llm",
    "tensorrt-llm-1.2": "tensorrt_llm_1_2",
}


def names() -> tuple[str, ...]:
    """Return the name of every backend; nothing is imported."""
    return tuple(BACKENDS)


def find(name: str) -> AnyBackend:
    """Return a backend by name.

    Raises:
        ConfigError: there is none of that name; the known ones are listed.
    """
    if name not in BACKENDS:
        raise unknown_name("backend", name, names())
    entry = BACKENDS[name]
    if isinstance(entry, str):
        found: AnyBackend = import_module(f"{PACKAGE}.{entry}.backend").BACKEND
        return found
    return entry


def get(name: str) -> AnyBackend | None:
    """Return a backend by name, or None where there is none: an engine may be of a lost one."""
    return find(name) if name in BACKENDS else None


def backends() -> tuple[AnyBackend, ...]:
    """Return every backend."""
    return tuple(find(name) for name in names())


def find_cpu(name: str) -> CpuBackend[Any]:
    """Return a CPU backend by name.

    Raises:
        ConfigError: there is none of that name, or it runs elsewhere.
    """
    found = find(name)
    if not isinstance(found, CpuBackend):
        raise ConfigError(f"backend {name} does not run on the CPU.")
    return found


def cpu_names() -> tuple[str, ...]:
    """Return the names of the backends that run on this machine's CPU."""
    return tuple(backend.name for backend in backends() if backend.is_cpu)


def first_for_gpu() -> str:
    """Return the backend that a build takes for a GPU where none is named."""
    return next(backend.name for backend in backends() if not backend.is_cpu)


def default_cpu_backend() -> tuple[str, str]:
    """Return (backend, why the fastest can't be had or "").

    That is the last of the registry that is fast here; where none says so, the first that runs.

    Raises:
        EnvironmentUnfitError: no CPU backend runs here.
    """
    reason, slow = "", []
    for name in reversed(cpu_names()):
        try:
            if find_cpu(name).is_fast_here():
                return name, reason
            slow.append(name)
        except EnvironmentUnfitError as error:
            reason = reason or error.message
    if not slow:
        raise EnvironmentUnfitError(reason or "there is no backend for CPUs.")
    return slow[-1], reason
