"""What the sampler's kernels are given, and the memory that it takes; as in kernels/turn.h."""

from ctypes import Structure, c_double, c_float, c_int32, c_uint64, c_void_p, sizeof
from pathlib import Path

from nemotrt.engines.backends.tensorrt.device.kernel_set import KernelSet
from nemotrt.engines.runtime.sampling.limits import MAX_BIASES

SLICE = 256  # tokens of a warp
MAX_VOCAB = (1 << 18) - 1  # whose weights' masses, 2^46 each at most, sum up in 64 bits
SLOT_BYTES = 4  # of a slot's number, for feed_tokens
MASKED, SEEN, COUNTED, BIASED = 1, 2, 4, 8  # of CTurn.edits
SAMPLER = KernelSet(
    Path(__file__).parent / "kernels",
    "sampler.cu",
    ("edit_logits", "weigh_scores", "choose_tokens", "feed_tokens"),
    ("-fmad=false", f"-DNEMOTRT_BIASES={MAX_BIASES}"),  # weights are the CPU's, bit for bit
    "the sampler",
)


class CTurn(Structure):
    """A sequence whose next token is due."""

    _fields_ = (
        ("seed", c_uint64),
        ("position", c_uint64),
        ("top_p", c_double),
        ("presence", c_double),
        ("frequency", c_double),
        ("inverse", c_float),
        ("least_weight", c_float),
        ("repetition", c_float),
        ("slot", c_int32),
        ("row", c_int32),
        ("forced", c_int32),
        ("top_k", c_int32),
        ("num_biased", c_int32),
        ("edits", c_int32),
    )


class CResult(Structure):
    """A turn's token and DrawStatus."""

    _fields_ = (("token", c_int32), ("status", c_int32))


class CTables(Structure):
    """Where the tables are on the device."""

    _fields_ = (
        ("masks", c_void_p),
        ("seen", c_void_p),
        ("counts", c_void_p),
        ("biased", c_void_p),
        ("biases", c_void_p),
        ("tokens", c_void_p),
        ("scores", c_void_p),
        ("most", c_void_p),
        ("heaviest", c_void_p),
        ("masses", c_void_p),
        ("results", c_void_p),
        ("vocab", c_int32),
    )


def num_slices(vocab_size: int) -> int:
    """Return the slices that a vocabulary has."""
    return -(-vocab_size // SLICE)


def slot_bytes(vocab_size: int) -> dict[str, int]:
    """Return the bytes of device memory that each slot needs, by table."""
    slices = num_slices(vocab_size)
    return {
        "masks": slices * SLICE // 8,
        "seen": slices * SLICE // 8,
        "counts": vocab_size * 4,
        "biased": MAX_BIASES * 4,
        "biases": MAX_BIASES * 8,
        "tokens": 8,
        "scores": vocab_size * 4,
        "most": slices * 4,
        "heaviest": slices * 4,
        "masses": slices * 8,
        "results": 8,
    }


def device_bytes(vocab_size: int, num_slots: int) -> int:
    """Return the device memory that sampling takes for so many slots."""
    each = sum(slot_bytes(vocab_size).values()) + sizeof(CTurn) + SLOT_BYTES
    return num_slots * each
