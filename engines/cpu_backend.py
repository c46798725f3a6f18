"""Which of our CPU engines is the faster on this machine."""

from nemotrt.engines.native.backend import has_vector_kernels
from nemotrt.engines.native.library import check_available
from nemotrt.errors import EnvironmentUnfitError


def default_cpu_backend() -> tuple[str, str]:
    """Return (backend, why native's step can't be had or "").

    That is native where its step is compiled or can be, with vector kernels, else onnxruntime.
    """
    try:
        check_available()
        return ("native" if has_vector_kernels() else "onnxruntime"), ""
    except EnvironmentUnfitError as error:
        return "onnxruntime", error.message
