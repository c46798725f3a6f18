"""NVIDIA's compute capabilities, such as "8.6", as numbers; which compute in FP8."""

FIRST_BF16 = "8.0"
FIRST_FP8 = "8.9"


def capability_number(compute_capability: str) -> tuple[int, int]:
    """Return "8.9" as (8, 9), which compares as it should."""
    major, _, minor = compute_capability.partition(".")
    return int(major), int(minor)


def has_bf16(compute_capability: str) -> bool:
    """Whether the GPU computes in bf16."""
    return capability_number(compute_capability) >= capability_number(FIRST_BF16)


def has_fp8(compute_capability: str | None) -> bool:
    """Whether the GPU computes in FP8; what is no GPU does not."""
    if compute_capability is None:
        return False
    return capability_number(compute_capability) >= capability_number(FIRST_FP8)
