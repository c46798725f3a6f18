"""Which CPU backend is the fastest on this machine."""

from nemotrt.engines.backends import registry
from nemotrt.errors import EnvironmentUnfitError


def default_cpu_backend() -> tuple[str, str]:
    """Return (backend, why the fastest can't be had or "").

    That is the last of the registry that is fast here; where none says so, the first that runs.

    Raises:
        EnvironmentUnfitError: no CPU backend runs here.
    """
    reason, slow = "", []
    for name in reversed(registry.cpu_names()):
        try:
            if registry.find_cpu(name).is_fast_here():
                return name, reason
            slow.append(name)
        except EnvironmentUnfitError as error:
            reason = reason or error.message
    if not slow:
        raise EnvironmentUnfitError(reason or "there is no backend for CPUs.")
    return slow[-1], reason
