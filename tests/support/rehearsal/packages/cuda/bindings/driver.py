"""Stands for cuda.bindings.driver."""

import sys

from support.rehearsal import device

sys.modules[__name__] = device.DRIVER  # type: ignore[assignment]
