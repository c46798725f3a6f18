"""Runs a call that recurses as deep as its input nests, on a stack that fits the input."""

import threading
from collections.abc import Callable
from typing import TypeVar

from nemotrt.errors import ConfigError

Result = TypeVar("Result")
_starting = threading.Lock()  # the size holds for every thread that starts while it is set


def on_deep_stack(work: Callable[[], Result], stack_bytes: int) -> Result:
    """Return what `work` returns or raises, run in a thread of its own.

    A stack that is too small ends the whole process, whatever thread it belongs to. Its memory is
    taken only as far as the call recurses.

    Raises:
        ConfigError: the machine has no room for such a stack.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # is raised again where the caller waits
            errors.append(error)

    thread = threading.Thread(target=run, name="deep stack", daemon=True)
    with _starting:
        usual = threading.stack_size(stack_bytes)
        try:
            thread.start()
        except RuntimeError as error:
            size = f"{stack_bytes >> 20} MiB"
            raise ConfigError(
                f"no room for the stack of {size} that this input may need."
            ) from error
        finally:
            threading.stack_size(usual)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
