"""What a user may choose of kept states, and how much memory that is on this machine."""

import logging
import math
from dataclasses import dataclass
from enum import StrEnum

from nemotrt.commandline.kinds import FloatRange
from nemotrt.commandline.options import option
from nemotrt.errors import ConfigError
from nemotrt.files.memory import available_bytes, mapped_bytes, memory_bytes

log = logging.getLogger("nemotrt.engine")
FREE_SHARE = 4  # chosen: one in so many bytes of free memory; slots and the system need the rest


class KeptSsm(StrEnum):
    """How the SSM states of kept prefixes are held."""

    EXACT = "exact"  # in the engine's own format
    FLOAT16 = "float16"


@dataclass(frozen=True, slots=True)
class PrefixCacheOptions:
    """How much memory kept states may take, in GiB, and their number format."""

    prefix_cache_gib: float | None = option(
        None,
        "GiB for kept states of prompts, which later prompts with the same beginning use; 0 keeps "
        "none.",
        kind=FloatRange(0),
        unset="a quarter of what is free, where the engine's states can be kept",
    )
    prefix_cache_ssm: KeptSsm = option(
        KeptSsm.EXACT, "Format of the Mamba states in it; float16 halves them and adds an error."
    )

    def __post_init__(self) -> None:
        """Check the range, and that there is a cache where something is said of it."""
        gib = self.prefix_cache_gib
        if gib is not None and not 0 <= gib < math.inf:
            raise ConfigError(f"prefix_cache_gib must be a finite number, 0 or more, got {gib}.")
        if gib == 0 and self.prefix_cache_ssm is not KeptSsm.EXACT:
            raise ConfigError(
                f"--prefix-cache-ssm {self.prefix_cache_ssm} is of the prefix cache, which "
                "--prefix-cache-gib 0 turns off; give one of them."
            )

    def check_size(self) -> None:
        """Raise ConfigError for more memory than this machine has."""
        most = memory_bytes()
        if self.prefix_cache_gib is not None and self.prefix_cache_gib * 2**30 > most:
            raise ConfigError(
                f"--prefix-cache-gib {self.prefix_cache_gib:g} is more than the memory here, "
                f"{most / 2**30:.1f} GiB; give less, or leave it out."
            )

    def limit_bytes(self, backend: str, *, can_keep: bool) -> int:
        """Return the limit on this machine, beside what this process has mapped; 0 keeps nothing.

        Raises:
            ConfigError: an option asks for what the engine can't keep, or for more memory than
                there is.
        """
        if not can_keep:
            if self.prefix_cache_gib or self.prefix_cache_ssm is not KeptSsm.EXACT:
                name = "gib" if self.prefix_cache_gib else "ssm"
                raise ConfigError(
                    f"--prefix-cache-{name} is for engines whose states we keep; this one is "
                    f"{backend}'s: leave it out."
                )
            return 0
        available = available_bytes()
        free = None if available is None else max(available - mapped_bytes(), 0)
        if self.prefix_cache_gib is None:
            return 0 if free is None else free // FREE_SHARE
        self.check_size()
        wanted = int(self.prefix_cache_gib * 2**30)
        if free is not None and wanted > free:
            log.warning(
                "--prefix-cache-gib %g: %.1f GiB are free beside the engine; what is kept beyond "
                "them may be swapped, or end this process.",
                self.prefix_cache_gib,
                free / 2**30,
            )
        return wanted
