"""A C++ compiler that builds all of llama.cpp's kernels, found here or brought from Debian.

Older ones leave kernels out (clang 14 its AMX ones) or miscompile them (gcc 12's end with an
illegal instruction), so that a peer would be measured lame.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

LEAST = {"clang": 16, "gcc": 13}
DEBIAN = "clang-19"
PACKAGES = (
    DEBIAN,
    "libllvm19",
    "libclang-cpp19",
    "libclang-common-19-dev",
    "llvm-19-linker-tools",
    "libclang1-19",
    "libomp-19-dev",
    "libomp5-19",
)
CURE = (
    f"Install one (apt-get install {DEBIAN} libomp-19-dev), or name one: CXX=clang++-19. "
    "Another compiler would leave out llama.cpp's kernels, and what is measured would not be it."
)


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C and a C++ compiler of one version, and what they need in the environment."""

    c: str
    cxx: str
    version: str  # its first line, for the table
    environment: dict[str, str] = field(default_factory=dict)
    links: str = ""  # the linker's options

    @property
    def word(self) -> str:
        """Its kind and version as a word, for a folder's name."""
        return "-".join(re.findall(r"clang|gcc|g\+\+|\d+\.\d+\.\d+", self.version)[:2])


def compiler(cache: Path) -> Compiler:
    """Return what builds llama.cpp: `$CXX`, else the newest here, else Debian's in `cache`.

    Raises:
        SystemExit: `$CXX` is too old, or there is none and Debian's can't be brought.
    """
    if named := os.environ.get("CXX"):
        found = _good(named)
        if found is None:
            raise SystemExit(f"CXX={named} is none of {_needed()}. {CURE}")
        return found
    newest = range(30, min(LEAST.values()) - 1, -1)
    names = [name for n in newest for name in (f"clang++-{n}", f"g++-{n}")]
    for name in (*names, "clang++", "g++", "c++"):
        found = _good(name)
        if found is not None:
            return found
    return _brought(cache / "debian")


def _needed() -> str:
    return " and ".join(f"{name} {least} or later" for name, least in LEAST.items())


def _good(name: str) -> Compiler | None:
    """Return the compiler of a name if it is there and new enough."""
    path = shutil.which(name)
    if path is None:
        return None
    line = subprocess.run([path, "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    told = re.search(r"(\d+)\.\d+\.\d+", line)
    kind = "clang" if "clang" in line else "gcc"
    if told is None or int(told[1]) < LEAST[kind]:
        return None
    c = path.replace("clang++", "clang") if kind == "clang" else path.replace("g++", "gcc")
    return Compiler(c, path, line)


def _brought(root: Path) -> Compiler:
    """Return Debian's clang, unpacked to `root` without being installed."""
    home = root / "usr/lib/llvm-19"
    if not (home / "bin/clang++").exists():
        root.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(["apt-get", "download", "-qq", *PACKAGES], cwd=root, check=True)
            for package in root.glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
                package.unlink()
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"no C++ compiler is {_needed()}: {error}. {CURE}") from error
    libraries = f"{home / 'lib'}:{root / 'usr/lib/x86_64-linux-gnu'}"
    environment = {"LD_LIBRARY_PATH": libraries}
    cxx = str(home / "bin/clang++")
    told = subprocess.run(
        [cxx, "--version"], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return Compiler(
        str(home / "bin/clang"),
        cxx,
        told.stdout.split("\n")[0],
        environment,
        links=f"-L{home / 'lib'} -Wl,-rpath,{home / 'lib'}",
    )
