"""What was found: of one kernel at one size, and of all of them."""

from dataclasses import dataclass, field

from nemotrt.build.check.result.fault import Fault


@dataclass(frozen=True, slots=True)
class Comparison:
    """A result against the CPU's: the largest error, the bound, and why it is that."""

    what: str
    error: float
    bound: float  # 0: bit for bit
    why: str

    @property
    def is_right(self) -> bool:
        """Whether the error is within the bound; NaN is not."""
        return self.error <= self.bound


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds, beside those of a copy within the device that moves as many bytes."""

    us: float
    copy_us: float
    moved_bytes: int  # that must be read and written at least

    @property
    def gb_per_s(self) -> float:
        """The bytes that must move over the time."""
        return self.moved_bytes / self.us / 1e3

    @property
    def copy_share(self) -> float:
        """The share of the copy's bandwidth; above 1 is faster than the copy."""
        return self.copy_us / self.us


@dataclass(frozen=True, slots=True)
class KernelRow:
    """One kernel at one size; `timing` None means that this size is only compared."""

    kernel: str
    case: str
    sequences: int
    tokens: int
    comparisons: tuple[Comparison, ...]
    timing: Timing | None = None

    @property
    def worst(self) -> Comparison:
        """The comparison that is nearest to its bound, or beyond it."""
        wrong = [item for item in self.comparisons if not item.is_right]
        by_share = sorted(self.comparisons, key=lambda one: one.error / (one.bound or 1))
        return (wrong or by_share[-1:])[0]


@dataclass(slots=True)
class KernelCheck:
    """What was found so far; what is not known yet is None."""

    compute_capability: str | None = None
    compiler: str | None = None
    rows: list[KernelRow] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
