"""The size of this machine's last-level cache."""

from pathlib import Path

CACHE_FOLDER = Path("/sys/devices/system/cpu/cpu0/cache")


def last_level_cache_mib() -> float | None:
    """Return the size, or None where Linux does not say."""
    try:
        texts = [path.read_text() for path in CACHE_FOLDER.glob("index*/size")]
    except OSError:
        return None
    sizes = [int(text.strip().removesuffix("K")) / 1024 for text in texts if "K" in text]
    return max(sizes, default=None)
