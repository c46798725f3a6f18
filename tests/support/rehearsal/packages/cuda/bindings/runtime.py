"""Stands for cuda.bindings.runtime."""

import sys

from support.rehearsal import device

sys.modules[__name__] = device.RUNTIME  # type: ignore[assignment]
