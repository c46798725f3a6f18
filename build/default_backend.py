"""Which backend a build takes when none is named."""

from nemotrt.engines.cpu_backend import default_cpu_backend


def default_backend(gpu: str | None, *, is_exact: bool = False) -> tuple[str, str]:
    """Return (backend, a note for the user or ""): tensorrt for a GPU, else the fastest here.

    `is_exact` is onnxruntime's choice.
    """
    if gpu is not None:
        return "tensorrt", ""
    if is_exact:
        return "onnxruntime", ""
    backend, reason = default_cpu_backend()
    return backend, f"building for onnxruntime: {reason}" if reason else ""
