"""The dimensions that the Mamba kernels are compiled for, and what follows from them."""

import hashlib
import math
from dataclasses import astuple, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from nemotrt.engines.backends.tensorrt.device.kernel_set import KernelSet
from nemotrt.engines.model.model_config import MambaConfig
from nemotrt.errors import ConfigError

SOURCES = Path(__file__).parents[1] / "plugins" / "kernels"
MAIN_SOURCE = "mamba.cu"
KERNELS = ("causal_conv", "ssd_decode", "ssd_prefill")
PURPOSE = "the Mamba plugins"
CHUNK = 32  # tokens of one step of the prefill kernel; ssd_prefill.h
MAX_STATIC_SHARED_BYTES = 48 * 1024  # Source: CUDA C++ Programming Guide, compute capabilities
MAX_THREADS = 1024  # Source: the same
CONV_THREADS = 128
CONV_TOKENS = 32  # of a block; causal_conv.h
DECODE_WARPS = 4  # of a block; ssd_decode.h
DECODE_LOADS = 10  # loads of 16 bytes that a lane has on their way


@dataclass(frozen=True)
class KernelDims:
    """One set of kernels; `key` names it in graphs and plans."""

    num_heads: int
    head_dim: int
    state_size: int
    num_groups: int
    conv_kernel: int

    @classmethod
    def of(cls, mamba: MambaConfig) -> "KernelDims":
        """Return a model's dimensions.

        Raises:
            ConfigError: the kernels are not made for them.
        """
        dims = cls(
            mamba.num_heads,
            mamba.head_dim,
            mamba.state_size,
            mamba.num_groups,
            mamba.conv_kernel,
        )
        dims.check()
        return dims

    def check(self) -> None:
        """Raise ConfigError unless the kernels fit a block of the GPU."""
        if not 2 <= self.conv_kernel <= CHUNK:
            raise ConfigError(f"the Mamba plugins take a conv_kernel of 2 to {CHUNK}.")
        if self.prefill_threads > MAX_THREADS or self.tile_bytes > MAX_STATIC_SHARED_BYTES:
            raise ConfigError(
                f"the Mamba plugins have no room for head_dim {self.head_dim} with state_size "
                f"{self.state_size} ({self.tile_bytes / 1024:.0f} KiB of shared memory, "
                f"{self.prefill_threads} threads); use --mamba native."
            )

    @property
    def inner_size(self) -> int:
        """Channels of x and z."""
        return self.num_heads * self.head_dim

    @property
    def channels(self) -> int:
        """Channels of the convolution: x, B, C."""
        return self.inner_size + 2 * self.num_groups * self.state_size

    @property
    def width(self) -> int:
        """Columns of in_proj's result: z, x, B, C, dt."""
        return self.inner_size + self.channels + self.num_heads

    @property
    def prefill_threads(self) -> int:
        """Threads of a prefill block."""
        return prefill_threads(self.head_dim)

    @property
    def tile_bytes(self) -> int:
        """Shared memory of a prefill block: x, B, C, scores twice, four floats a token."""
        row = -(-self.head_dim // 16) * 16 + 2 * -(-self.state_size // 16) * 16 + 2 * CHUNK
        return CHUNK * (2 * (row + 5 * 8) + 4 * 4)

    @property
    def decode_rows(self) -> int:
        """Channels that one decode block updates: all that its loads in flight cover."""
        vectors = self.state_size // 4 if self.state_size % 4 == 0 else self.state_size
        lanes = min(32, 1 << (vectors - 1).bit_length())
        depth = max(1, DECODE_LOADS // math.ceil(vectors / lanes))
        return DECODE_WARPS * (32 // lanes) * depth

    @property
    def defines(self) -> tuple[str, ...]:
        """The compiler's options that set the dimensions."""
        values = {
            "HEADS": self.num_heads,
            "HEAD_DIM": self.head_dim,
            "STATE": self.state_size,
            "GROUPS": self.num_groups,
            "CONV_KERNEL": self.conv_kernel,
            "DECODE_ROWS": self.decode_rows,
        }
        return tuple(f"-DNEMOTRT_{name}={value}" for name, value in values.items())

    @property
    def kernels(self) -> KernelSet:
        """The kernels for these dimensions."""
        return KernelSet(SOURCES, MAIN_SOURCE, KERNELS, self.defines, PURPOSE)

    @cached_property
    def key(self) -> str:
        """The digest of sources and dimensions: a plan runs with the kernels it was built with."""
        digest = hashlib.sha256(repr(astuple(self)).encode())
        for name, text in sources().items():
            digest.update(f"\n{name}\n{text}".encode())
        return digest.hexdigest()[:16]


class Launch(NamedTuple):
    """A kernel, its blocks along x, y, z, and the threads of a block."""

    kernel: str
    grid: tuple[int, int, int]
    threads: int


def conv_launch(channels: int, width: int, batch: int, tokens: int) -> Launch:
    """Return how the convolution is launched; `width` is that of in_proj's result."""
    is_paired = channels % 2 == 0 and width % 2 == 0  # a thread has two channels
    of_block = CONV_THREADS * (2 if is_paired else 1)
    grid = math.ceil(channels / of_block), math.ceil(tokens / CONV_TOKENS), batch
    return Launch("causal_conv", grid, CONV_THREADS)


def scan_launch(num_heads: int, head_dim: int, decode_rows: int, batch: int, tokens: int) -> Launch:
    """Return how the scan is launched: of one token a sequence, or of more."""
    if tokens > 1:
        return Launch("ssd_prefill", (num_heads, batch, 1), prefill_threads(head_dim))
    grid = num_heads, math.ceil(head_dim / decode_rows), batch
    return Launch("ssd_decode", grid, 32 * DECODE_WARPS)


def prefill_threads(head_dim: int) -> int:
    """Return the threads of a prefill block: a warp for each 16 channels of a head."""
    return 32 * math.ceil(head_dim / 16)


def sources() -> dict[str, str]:
    """Return every source file's text, by name."""
    return KernelSet(SOURCES, MAIN_SOURCE, KERNELS, (), PURPOSE).sources()
