"""What a calibration keeps of an activation: amax per channel, and a histogram of magnitudes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.codes.jit import compiled
from nemotrt.errors import ArtefactError, unknown_name
from nemotrt.quantize.conversion.options import METHODS

Floats = npt.NDArray[np.float32]
BIN_SHIFT = 19  # a bin is the exponent and 4 bits of mantissa: 16 bins an octave
NUM_BINS = 1 << (31 - BIN_SHIFT)


@compiled
def _observe(values: Floats, bits: Any, channel_amax: Floats, histogram: Any) -> None:
    """Update both with `values` [tokens, channels]; `bits` are the same as uint32."""
    for t in range(values.shape[0]):
        for c in range(values.shape[1]):
            size = bits[t, c] & np.uint32(0x7FFFFFFF)
            histogram[size >> np.uint32(BIN_SHIFT)] += 1
            channel_amax[c] = max(channel_amax[c], np.abs(values[t, c]))


@dataclass(slots=True)
class Observation:
    """The magnitudes of one activation over all calibration tokens."""

    channel_amax: Floats  # [channels]
    histogram: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(NUM_BINS, np.int64))

    @classmethod
    def empty(cls, num_channels: int) -> "Observation":
        """Return an observation of nothing."""
        return cls(np.zeros(num_channels, np.float32))

    @property
    def amax(self) -> float:
        """The largest magnitude."""
        return float(self.channel_amax.max(initial=0.0))

    def add(self, values: Floats, what: str) -> None:
        """Take in `values` [..., channels].

        Raises:
            ArtefactError: a value is NaN or infinite: the model itself overflows.
        """
        flat = np.ascontiguousarray(values.reshape(-1, values.shape[-1]))
        _observe(flat, flat.view(np.uint32), self.channel_amax, self.histogram)
        if self.histogram[255 << (23 - BIN_SHIFT) :].any():
            raise ArtefactError(f"the input of {what} is NaN or infinite on the calibration text.")

    def clip(self, method: str, percentile: float, code_max: float) -> float:
        """Return the magnitude that the largest code stands for.

        `amax` clips nothing; `percentile` clips the part above it (of all magnitudes, in percent);
        `mse` takes the clip with the least squared error for codes up to `code_max` (448 or 127).
        """
        if method == "amax" or self.amax == 0:
            return self.amax
        if method == "percentile":
            return min(self.amax, self._percentile(percentile))
        if method == "mse":
            return self._least_error(code_max)
        raise unknown_name("calibration method", method, METHODS)

    def _percentile(self, percentile: float) -> float:
        """Return the upper edge of the bin that holds the percentile."""
        total = np.cumsum(self.histogram)
        place = int(np.searchsorted(total, total[-1] * percentile / 100))
        return float(_edges()[place + 1])

    def _least_error(self, code_max: float) -> float:
        """Return the best of 100 clips, evenly from amax / 100 to amax."""
        middle = np.sqrt(np.maximum(_edges()[:-1], 1e-45) * np.maximum(_edges()[1:], 1e-45))
        used = np.flatnonzero(self.histogram)
        values, counts = middle[used], self.histogram[used].astype(np.float64)
        clips = self.amax * np.arange(1, 101) / 100
        errors = [float(counts @ _error(values, clip, code_max) ** 2) for clip in clips]
        return float(clips[int(np.argmin(errors))])


def _edges() -> npt.NDArray[np.float64]:
    """Return the lower edges of the bins, and the end of the last."""
    bits = np.arange(NUM_BINS + 1, dtype=np.uint64) << np.uint64(BIN_SHIFT)
    finite = np.minimum(bits, 0x7F7FFFFF).astype(np.uint32)
    edges: npt.NDArray[np.float64] = finite.view(np.float32).astype(np.float64)
    return edges


def _error(
    values: npt.NDArray[np.float64], clip: float, code_max: float
) -> npt.NDArray[np.float64]:
    """Return value minus its nearest code times the scale."""
    scaled = np.minimum(values * (code_max / clip), code_max)
    if code_max == 127.0:
        rounded = np.rint(scaled)
    else:  # E4M3: 3 bits of mantissa, subnormals in steps of 2^-9
        exponent = np.floor(np.log2(np.maximum(scaled, 2.0**-6)))
        step = 2.0 ** (exponent - 3)
        rounded = np.rint(scaled / step) * step
    return values - rounded * (clip / code_max)
