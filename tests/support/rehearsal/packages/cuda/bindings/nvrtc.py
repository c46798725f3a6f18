"""Stands for cuda.bindings.nvrtc."""

import sys

from support.rehearsal import device

sys.modules[__name__] = device.NVRTC  # type: ignore[assignment]
