"""Wheels from the package index, unpacked in the user's cache; each is fetched once."""

import fcntl
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory


def cache_folder() -> Path:
    """Return where tests keep what they fetch and read."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "nemotrt" / "bindings"


def unpacked(package: str, version: str) -> Path:
    """Return the folder of a wheel's files, for this Python.

    Raises:
        AssertionError: it is not in the cache and can't be fetched: the test fails, it never skips.
    """
    python = "".join(map(str, sys.version_info[:2]))
    folder = cache_folder() / f"{package}-{version}-cp{python}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with TemporaryDirectory(dir=folder.parent) as place:
                wheel = _download(f"{package}=={version}", Path(place) / "wheel")
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(Path(place) / "files")
                (Path(place) / "files").rename(folder)
    return folder


def _download(requirement: str, folder: Path) -> Path:
    """Fetch one wheel."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    command += ["--only-binary", ":all:", requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl")) if folder.is_dir() else []
    assert done.returncode == 0 and wheels, (
        f"{requirement} is not in {cache_folder()} and can't be fetched. Our code is held to it: "
        f"give this machine a package index once. pip said: {done.stderr.strip()[-500:]}"
    )
    return wheels[0]
