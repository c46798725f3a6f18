"""What one request may ask for; the engine's process, Triton's model and the front share these.

A request beyond a limit is refused with the limit's name and value before the work begins.
"""

from nemotrt.errors import ConfigError

MAX_STOP_STRINGS = 64
MAX_STOP_CHARACTERS = 8192  # of all stop strings of a request: 8 ms to compile
MAX_STOP_TOKEN_IDS = 64
MAX_BYTES_PER_TOKEN = 64  # a longer text can't fit: refused before it costs a tokenizer's time
MAX_GUIDE_CHARACTERS = 1 << 18


def check_count(name: str, count: int, limit: int, unit: str = "entries") -> None:
    """Raise ConfigError where `name` has more than it may."""
    if count > limit:
        raise ConfigError(f"{name} has {count} {unit}; the limit is {limit}.")


def check_stops(name: str, stop: list[str] | tuple[str, ...]) -> None:
    """Raise ConfigError for too many stop strings, or too long ones."""
    check_count(name, len(stop), MAX_STOP_STRINGS)
    check_count(name, sum(map(len, stop)), MAX_STOP_CHARACTERS, "characters in all")
