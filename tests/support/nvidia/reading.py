"""Reads a module's API in a process of its own, once, and keeps it in the user's cache."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from support.nvidia import dump
from support.nvidia.api import Api
from support.nvidia.wheels import cache_folder


def kept_api(module: str, name: str, environment: Callable[[], dict[str, str]]) -> Api:
    """Return the API of `module`, which `name` identifies, as it is in an environment."""
    script = Path(str(dump.__file__))
    told = script.read_bytes() + repr((module, sys.version_info[:2])).encode()
    kept = cache_folder() / f"{name}-{hashlib.sha256(told).hexdigest()[:12]}.json"
    if not kept.is_file():
        command = [sys.executable, str(script), module]
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{name}: {done.stderr[-2000:]}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_text(done.stdout, encoding="utf-8")
        partial.replace(kept)
    return Api(json.loads(kept.read_text(encoding="utf-8")))
