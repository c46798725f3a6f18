"""The processor's time of a call, without what collecting garbage of earlier tests takes."""

import gc
import time
from collections.abc import Callable


def cpu_seconds(call: Callable[[], object]) -> float:
    """Call it, and return the CPU seconds that this process took meanwhile."""
    gc.disable()
    try:
        began = time.process_time()
        call()
        return time.process_time() - began
    finally:
        gc.enable()
