"""Which backend a build takes when none is named."""

from collections.abc import Collection

from nemotrt.build.backend_options import backend_options
from nemotrt.engines.backends import registry


def default_backend(gpu: str | None, given: Collection[str] = ()) -> tuple[str, str]:
    """Return (backend, a note for the user or ""): tensorrt for a GPU, else the fastest here.

    Among the flags that are `given`, one that is a CPU backend's alone decides for it.
    """
    if gpu is not None:
        return registry.first_for_gpu(), ""
    for option in backend_options():
        if option.flag in given and set(option.backends) <= set(registry.cpu_names()):
            return option.backends[0], ""
    backend, reason = registry.default_cpu_backend()
    return backend, f"building for {backend}: {reason}" if reason else ""
