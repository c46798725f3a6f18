"""Which options of `nemotrt build` only some backends have: one table for help, command and API."""

from collections.abc import Collection
from dataclasses import dataclass

from nemotrt.errors import ConfigError


@dataclass(frozen=True, slots=True)
class BackendOption:
    """An option that the other backends refuse; `field` is its name in a BuildSpec."""

    flag: str
    field: str
    backends: tuple[str, ...]


BACKEND_OPTIONS = (
    BackendOption("--exact", "is_exact", ("onnxruntime",)),
    BackendOption("--ssm-state", "ssm_state", ("native",)),
    BackendOption("--embed-weights", "is_embedded", ("tensorrt",)),
    BackendOption("--workspace-gib", "workspace_bytes", ("tensorrt",)),
    BackendOption("--mamba", "mamba", ("tensorrt",)),
    BackendOption("--tp-size", "tp_size", ("tensorrt-llm", "tensorrt-llm-1.2")),
    BackendOption("--trust-remote-code", "is_code_trusted", ("tensorrt-llm",)),
)


def only_for(flag: str, text: str) -> str:
    """Return the help of an option: the backends that have it, then `text`."""
    (option,) = (option for option in BACKEND_OPTIONS if option.flag == flag)
    return f"{', '.join(option.backends)}: {text}"


def check_options(backend: str, given: Collection[str]) -> None:
    """Raise ConfigError if `backend` lacks one of the `given` flags; others are not looked at."""
    foreign = [
        f"{option.flag} is for backend {' and '.join(option.backends)}"
        for option in BACKEND_OPTIONS
        if option.flag in given and backend not in option.backends
    ]
    if foreign:
        raise ConfigError(f"{'; '.join(foreign)}, not {backend}.")
