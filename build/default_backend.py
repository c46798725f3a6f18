"""Which backend a build takes when none is named."""

from nemotrt.engines.native.backend import has_vector_kernels
from nemotrt.engines.native.library import check_available
from nemotrt.errors import EnvironmentUnfitError


def default_backend(gpu: str | None, *, is_exact: bool = False) -> tuple[str, str]:
    """Return (backend, a note for the user or ""): tensorrt for a GPU, else the fastest here.

    On the CPU that is native where its step is compiled or can be, with vector kernels; `is_exact`
    is onnxruntime's choice.
    """
    if gpu is not None:
        return "tensorrt", ""
    if is_exact:
        return "onnxruntime", ""
    try:
        check_available()
        if has_vector_kernels():
            return "native", ""
    except EnvironmentUnfitError as error:
        return "onnxruntime", f"building for onnxruntime: {error.message}"
    return "onnxruntime", ""
