"""What kept states did so far."""

from dataclasses import dataclass


@dataclass(slots=True)
class KeptStats:
    """Counts since the start, and what is held now."""

    limit_bytes: int
    bytes: int = 0  # held now
    states: int = 0  # held now
    prompt_tokens: int = 0  # of admitted requests
    hit_tokens: int = 0  # of these, those whose state was kept
    saves: int = 0
    evictions: int = 0
    preemptions: int = 0
    saved_s: float = 0.0  # what computing the hit tokens would have taken, estimated
