"""How a checkpoint's linears and KV cache are stored: the one typed answer for every layout."""

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from nemotrt.engines.model.numerics import KV_CODES, NumberFormat, Precision
from nemotrt.errors import ConfigError


class Layout(StrEnum):
    """Whose way of storing codes it is: config.json's quant_method, and a file format."""

    MODELOPT = "modelopt"
    COMPRESSED_TENSORS = "compressed-tensors"
    AWQ = "awq"
    GPTQ = "gptq"
    FP8 = "fp8"  # transformers' FineGrainedFP8Config
    FBGEMM_FP8 = "fbgemm_fp8"
    GGUF = "gguf"


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the codes of some linears are stored.

    `precision` is the nearest that the planner has rates for. `is_own` says that it is just that,
    so that kernels here take the codes; others are read as floats. `group` is [rows, columns] that
    share a scale; 0 stands for all of them. `scale_bytes` counts a group's scale and zero point.
    """

    precision: Precision
    title: str
    group: tuple[int, int] = (1, 0)
    scale_bytes: float = 4.0
    is_own: bool = False
    num_bits: int = 8
    zero_offset: int = 0  # what is added to a stored zero point
    is_ordered: bool = False  # groups are of inputs in an order of their own, which is stored
    has_fp4_inputs: bool = False  # beside FP4 weights, which `precision` has with any inputs

    def linear_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes of the codes and scales of one linear, [rows, columns]."""
        codes = math.prod(shape) * self.num_bits // 8
        groups = math.prod(
            math.ceil(size / (group or size)) for size, group in zip(shape, self.group, strict=True)
        )
        return codes + math.ceil(groups * self.scale_bytes)


@dataclass(frozen=True, slots=True)
class QuantConfig:
    """The quantization of a checkpoint: which modules have which scheme, and the KV cache's type.

    `schemes` pairs patterns of modules with their scheme; no pattern stands for every linear that
    is not in `exclude`. Without schemes the linears are floats. Without a layout, no config says
    anything.
    """

    layout: Layout | None = None
    schemes: tuple[tuple[tuple[str, ...], Scheme], ...] = ()
    kv_cache_algo: str | None = None  # ModelOpt's word
    exclude: frozenset[str] = frozenset()

    @property
    def scheme(self) -> Scheme | None:
        """The scheme of all quantized linears; None where they are floats.

        Of int8 beside int4 it is int4's, as `precision` is; `scheme_of` tells them apart.

        Raises:
            ConfigError: there are several otherwise.
        """
        found = {scheme for _, scheme in self.schemes}
        if len(found) > 1 and self.precision is not None:
            found = {scheme for scheme in found if scheme.precision is self.precision}
        if len(found) > 1:
            titles = ", ".join(sorted({scheme.title for scheme in found}))
            raise ConfigError(
                f"the checkpoint mixes {len(found)} kinds of linears ({titles}), which this can't "
                "take; plan or inspect one that has one kind, or the 16 bit checkpoint."
            )
        return next(iter(found), None)

    @property
    def precision(self) -> Precision | None:
        """What engines take the linears' codes for; None where they are, or are read as, floats.

        Linears in int8 beside those in int4 are stored for int4.
        """
        if not all(scheme.is_own for _, scheme in self.schemes):
            return None
        own = {scheme.precision for _, scheme in self.schemes}
        if own == {Precision.INT4_WO, Precision.INT8_WO}:
            return Precision.INT4_WO
        return own.pop() if len(own) == 1 else None

    @property
    def group_sizes(self) -> frozenset[int]:
        """How many inputs share a scale, where some of a row do."""
        return frozenset(
            scheme.group[1] for _, scheme in self.schemes if scheme.precision.weights.is_grouped
        )

    @property
    def algo(self) -> str:
        """ModelOpt's word for the linears as they are read, `none` for floats."""
        return self.precision.algo if self.precision else "none"

    @property
    def title(self) -> str:
        """What people call it; empty where the linears are floats."""
        return ", ".join(dict.fromkeys(scheme.title for _, scheme in self.schemes))

    @property
    def rounds_activations(self) -> bool:
        """Whether inputs of linears are to be rounded too, not their weights alone."""
        return self.precision is not None and not self.precision.is_weight_only

    @property
    def leaves_inputs(self) -> bool:
        """Whether engines that take the codes round inputs too: floats, where weights are."""
        return self.precision is None and any(
            scheme.has_fp4_inputs or not scheme.precision.is_weight_only
            for _, scheme in self.schemes
        )

    @property
    def has_fp8_cache(self) -> bool:
        """Whether the KV cache is to be FP8."""
        return self.kv_cache_algo == "FP8"

    @property
    def kv(self) -> NumberFormat:
        """The type of the KV cache.

        Raises:
            ConfigError: it is none that anything here counts.
        """
        if self.kv_cache_algo is None:
            return NumberFormat.BF16
        if self.kv_cache_algo not in KV_CODES:
            raise ConfigError(
                f"a KV cache of {self.kv_cache_algo!r} is not supported; known: "
                f"{', '.join(KV_CODES)}."
            )
        return KV_CODES[self.kv_cache_algo]

    def excludes(self, module: str) -> bool:
        """Whether the config leaves `module` in 16 bits."""
        return any(self._matches(pattern, module) for pattern in self.exclude)

    def scheme_of(self, module: str) -> Scheme | None:
        """Return the scheme of a module that holds codes; None where the configs name none."""
        for patterns, scheme in self.schemes:
            if not patterns or any(self._matches(pattern, module) for pattern in patterns):
                return scheme
        return None

    def _matches(self, pattern: str, module: str) -> bool:
        """Whether a pattern of this layout names a module.

        Source: TensorRT-LLM and vLLM 0.33 match ModelOpt's list by fnmatch; compressed-tensors 0.20
        (utils/match.py) has exact names and regexes behind "re:"; transformers takes
        modules_to_not_convert for parts of names.
        """
        if module == pattern:
            return True
        if self.layout is Layout.MODELOPT:
            return fnmatchcase(module, pattern)
        if self.layout is Layout.COMPRESSED_TENSORS:
            return pattern.startswith("re:") and re.match(pattern[3:], module) is not None
        return f".{pattern}." in f".{module}."
