"""A linear's weight as the checkpoint stores it, read as floats or as codes with scales."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import ALL, Checkpoint
from nemotrt.engines.checkpoint.codes.packed import INT4_WORD
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.errors import ArtefactError

INT8 = NumberFormat.INT8


@dataclass(frozen=True, slots=True)
class LinearWeight:
    """The weight [out, in] of one linear: 16- or 32-bit floats, int8, int4, or float8 E4M3."""

    checkpoint: Checkpoint
    name: str

    @property
    def is_quantized(self) -> bool:
        """Whether the checkpoint stores codes and a scale."""
        return not self.checkpoint[self.name].is_float

    @property
    def _input_factor(self) -> str:
        """The name of SmoothQuant's factor on the input."""
        return self.name.removesuffix("weight") + "pre_quant_scale"

    @property
    def has_input_factor(self) -> bool:
        """Whether the input is multiplied by a factor per channel before the codes apply.

        Factors of one change nothing: TensorRT-LLM wants them beside int4 codes.
        """
        name = self._input_factor
        return name in self.checkpoint and bool((self.checkpoint.floats(name) != 1).any())

    def scale(self) -> npt.NDArray[np.float32]:
        """Return the weight's scale, [out]; a per-tensor scale is repeated.

        Raises:
            ArtefactError: the scale has another shape, or is not positive.
        """
        ref = self.checkpoint[self.name]
        scale = self.checkpoint.floats(f"{self.name}_scale").reshape(-1)
        if scale.size not in (1, ref.shape[0]) or not (scale > 0).all():
            raise ArtefactError(
                f"{ref.path}: {self.name}_scale must be positive, one value or {ref.shape[0]}."
            )
        return np.broadcast_to(scale, (ref.shape[0],)).copy()

    def floats(self, rows: slice = ALL) -> npt.NDArray[np.float32]:
        """Return rows of the weight as float32 [out, in], dequantized if it is stored as codes.

        A SmoothQuant `pre_quant_scale`, which multiplies the input, is folded into the columns.
        """
        if not self.is_quantized:
            return self.checkpoint.floats(self.name, rows)
        weight = self.checkpoint[self.name].rows(rows).astype(np.float32)
        if self.has_int4:
            weight *= spread(self.group_scales(rows), weight.shape[1])
        else:
            weight *= self.scale()[rows, None]
        if self.has_input_factor:
            weight *= self.checkpoint.floats(self._input_factor)[None, :]
        return weight

    @property
    def has_int4(self) -> bool:
        """Whether the checkpoint stores int4 codes, with scales for groups of inputs."""
        return self.checkpoint[self.name].dtype == INT4_WORD

    def group_scales(self, rows: slice = ALL) -> npt.NDArray[np.float32]:
        """Return the scales of stored int4 codes, [out, groups].

        Raises:
            ArtefactError: they have another shape, or one is not positive.
        """
        ref, name = self.checkpoint[self.name], f"{self.name}_scale"
        shape = self.checkpoint[name].shape
        groups = shape[1] if len(shape) == 2 else 1
        if shape not in ((ref.shape[0], groups), (ref.shape[0],)) or groups > ref.shape[1]:
            raise ArtefactError(f"{ref.path}: {name} is {list(shape)}, no scales of its groups.")
        scales = self.checkpoint.floats(name, rows).reshape(-1, groups)
        if not (scales > 0).all():
            raise ArtefactError(f"{ref.path}: {name} must be positive.")
        return scales

    def int4_groups(
        self, rows: slice, size: int
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Return (codes [out, in], scales [out, groups of `size`]), with weight = codes * scale.

        Stored codes are taken where `size` divides their groups; any other weight is rounded.
        """
        from nemotrt.engines.checkpoint.codes.groups import NO_WEIGHTS, round_groups

        columns = self.checkpoint[self.name].shape[1]
        num_groups = -(-columns // size)
        if self.has_int4 and not self.has_input_factor:
            stored = self.group_scales(rows)
            own = -(-columns // stored.shape[1])
            if stored.shape[1] == 1 or (own % size == 0 and columns % own == 0):
                scales = spread(stored, columns)[:, ::size]
                return self.checkpoint[self.name].rows(rows), np.ascontiguousarray(scales)
        weight = self.floats(rows)
        codes = np.empty(weight.shape, np.int8)
        scales = np.empty((len(weight), num_groups), np.float32)
        round_groups(weight, NO_WEIGHTS, size, codes, scales)
        return codes, scales

    @property
    def has_codes(self) -> bool:
        """Whether the checkpoint stores int8 codes that apply to the input as it is."""
        return self.checkpoint[self.name].dtype == INT8.safetensors and not self.has_input_factor

    def int8(self) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Return (codes [out, in], scale [out]), with weight = codes * scale.

        Codes behind a `pre_quant_scale` are dequantized with it first. Those and any float weight
        are rounded here: scale = amax / 127 per output channel, as ModelOpt's INT8 weight-only
        recipe does; a row of zeros takes scale 1.
        """
        codes, scales = self.int8_blocks(ALL, self.checkpoint[self.name].shape[1])
        return codes, scales[0]

    def int8_blocks(
        self, rows: slice, block: int
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """Return (codes [out, in], scales [blocks, out]): as `int8`, a scale for `block` inputs.

        Stored codes have one scale for all inputs: [1, out].
        """
        if self.has_codes:
            return self.checkpoint[self.name].rows(rows), self.scale()[None, rows]
        weight = self.floats(rows)
        scales = []
        for start in range(0, weight.shape[1], block):
            part = weight[:, start : start + block]
            amax = np.maximum(part.max(axis=1), -part.min(axis=1))
            scale = np.where(amax > 0, amax / np.float32(INT8.largest_code), 1).astype(np.float32)
            part /= scale[:, None]
            scales.append(scale)
        return np.rint(weight, out=weight).astype(np.int8), np.stack(scales)


def spread(scales: npt.NDArray[np.float32], columns: int) -> npt.NDArray[np.float32]:
    """Return scales of groups [out, groups] as [out, columns]; the last group may be smaller."""
    return np.repeat(scales, -(-columns // scales.shape[1]), axis=1)[:, :columns]
