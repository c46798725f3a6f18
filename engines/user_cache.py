"""Where what this machine compiled or measured is kept between runs."""

import os
from pathlib import Path


def user_cache() -> Path:
    """Return our folder in the user's cache: in $XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nemotrt"
