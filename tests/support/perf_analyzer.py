"""NVIDIA's perf_analyzer, a program of its own: from the package index, unchanged.

Its wheel is for a C library that is newer than some machines'. There it runs with Debian 13's own
libraries beside it, brought by apt and unpacked without being installed.
"""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from nemotrt.files.user_cache import user_cache

VERSION = "2.60.0"
WHEELS_LIBC = (2, 38)
LIBRARIES = ("libc6", "libgcc-s1", "libssl3t64", "libstdc++6", "libzstd1", "zlib1g")
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
SOURCE = f"deb [signed-by={KEYS}] http://deb.debian.org/debian trixie main\n"


def perf_analyzer() -> Path:
    """Return the program: $PERF_ANALYZER, on the PATH, or brought to the user's cache.

    Raises:
        subprocess.CalledProcessError: pip or apt can't bring it.
    """
    given = os.environ.get("PERF_ANALYZER") or shutil.which("perf_analyzer")
    if given:
        return Path(given)
    place = user_cache() / f"perf_analyzer-{VERSION}"
    program = place / "run/perf_analyzer"
    if program.is_file():
        return program
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", place]
    only = ["--only-binary=:all:", "--platform=manylinux_2_38_x86_64"]
    subprocess.run([*pip, *only, f"perf-analyzer=={VERSION}"], check=True, timeout=600)
    [wheel] = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        own = Path(archive.extract("perf_analyzer/bin/perf_analyzer", place))
    own.chmod(0o755)
    command = f'exec {own} "$@"'
    if tuple(map(int, platform.libc_ver()[1].split("."))) < WHEELS_LIBC:
        _bring_libraries(place / "apt")
        libraries = place / "apt/root/usr/lib/x86_64-linux-gnu"
        command = f'exec {libraries}/ld-linux-x86-64.so.2 --library-path {libraries} {own} "$@"'
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{command}\n")
    program.chmod(0o755)
    return program


def _bring_libraries(place: Path) -> None:
    """Unpack Debian 13's libraries below `place`, with lists and state of their own."""
    for folder in ("lists/partial", "cache/archives/partial", "state", "debs"):
        (place / folder).mkdir(parents=True)
    (place / "sources.list").write_text(SOURCE)
    (place / "state/status").touch()
    told = {
        "Dir::Etc::sourcelist": place / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State": place / "state",
        "Dir::State::status": place / "state/status",
        "Dir::State::lists": place / "lists",
        "Dir::Cache": place / "cache",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in told.items())]
    subprocess.run([*apt, "update"], check=True, timeout=300)
    subprocess.run([*apt, "download", *LIBRARIES], check=True, timeout=300, cwd=place / "debs")
    for package in sorted((place / "debs").glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, place / "root"], check=True)
