"""A 64-bit ARM machine in software: Debian's cross compiler, and its Python under qemu's user mode.

Nothing is installed: packages are unpacked to the user's cache. qemu runs a process's instructions
as the CPU named by `QEMU_CPU` would; it shows what they compute, not how fast.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemotrt.files.user_cache import user_cache

ROOT = Path(__file__).parents[2]
TRIPLE = "aarch64-linux-gnu"
GCC = "12"
MADE_HERE = [
    "qemu-user-static",
    *(f"{name}-{GCC}-{TRIPLE}" for name in ("g++", "gcc", "cpp")),
    f"binutils-{TRIPLE}",
    *(f"{name}-arm64-cross" for name in ("libc6-dev", "libc6", "linux-libc-dev")),
    *(f"{name}-arm64-cross" for name in (f"libstdc++-{GCC}-dev", f"libgcc-{GCC}-dev")),
    *(f"{name}-arm64-cross" for name in ("libstdc++6", "libgcc-s1")),
]
MADE_THERE = ["python3.11", "libstdc++6"]
# What opening an engine imports; numba's and onnxruntime's wheels are for this CPU too.
WHEELS = [
    "click", "huggingface_hub", "jinja2", "ml-dtypes", "numba", "numpy", "nvidia-ml-py", "onnx",
    "onnxruntime", "prometheus_client", "pydantic", "pyyaml", "rich", "tokenizers",
]  # fmt: skip
APT = """APT::Architecture "arm64"; APT::Architectures {{ "arm64"; }}; APT::Sandbox::User "root";
Dir::State "{0}"; Dir::State::lists "{0}/lists"; Dir::State::status "{0}/status"; Dir::Cache "{0}";
"""


@dataclass(frozen=True, slots=True)
class Aarch64:
    """Where the machine lies."""

    folder: Path

    def compiler(self) -> list[str]:
        """Return the C++ compiler's command, as `compile_library` takes it."""
        return [str(self.folder / "c++")]

    def python(self, words: Sequence[str], cpu: str, library: Path) -> str:
        """Run Python there, with the package and its compiled step; return what it printed."""
        paths = [str(ROOT / ".dev"), str(self.folder / "site")]
        environment = os.environ | {
            "QEMU_CPU": cpu,
            "QEMU_LD_PREFIX": str(self.folder / "root"),
            "PYTHONPATH": ":".join(paths),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NEMOTRT_NATIVE_LIBRARY": str(library),
        }
        emulator = self.folder / "cross/usr/bin/qemu-aarch64-static"
        command = [str(emulator), str(self.folder / "root/usr/bin/python3.11"), *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


def aarch64() -> Aarch64:
    """Return the machine, brought once."""
    assert shutil.which("apt-get") and shutil.which("dpkg-deb"), "a Debian or Ubuntu host brings it"
    folder = user_cache() / f"aarch64-gcc{GCC}"
    if not (folder / "c++").exists():
        shutil.rmtree(folder, ignore_errors=True)
        for part in ("cross", "root", "debs", "apt/lists/partial", "apt/archives/partial"):
            (folder / part).mkdir(parents=True)
        _bring_compiler(folder)
        _bring_python(folder)
        _write_compiler(folder)
    return Aarch64(folder)


def _run(command: Sequence[str | Path], **options: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr[-3000:]


def _unpack(packages: Path, target: Path) -> None:
    for package in sorted(packages.glob("*.deb")):
        _run(["dpkg-deb", "-x", package, target])
        package.unlink()


def _bring_compiler(folder: Path) -> None:
    _run(["apt-get", "download", *MADE_HERE], cwd=folder / "debs")
    _unpack(folder / "debs", folder / "cross")
    script = folder / f"cross/usr/{TRIPLE}/lib/libc.so"  # names files where they are installed
    script.write_text(script.read_text().replace(f"/usr/{TRIPLE}/lib/", ""))


def _bring_python(folder: Path) -> None:
    own = folder / "apt"
    (own / "status").touch()
    (own / "conf").write_text(APT.format(own))
    environment = os.environ | {"APT_CONFIG": str(own / "conf")}
    _run(["apt-get", "update"], env=environment)
    wanted = ["--download-only", "--no-install-recommends", "-y", "install", *MADE_THERE]
    _run(["apt-get", "-o", f"Dir::Cache::archives={folder / 'debs'}", *wanted], env=environment)
    _unpack(folder / "debs", folder / "root")
    kinds = ["manylinux2014", "manylinux_2_17", "manylinux_2_27", "manylinux_2_28"]
    platforms = [f"--platform={kind}_aarch64" for kind in kinds]
    python = ["--python-version=3.11", "--implementation=cp", "--only-binary=:all:"]
    place = [*platforms, *python, "--target", folder / "site"]
    _run([sys.executable, "-m", "pip", "install", "--quiet", *place, *WHEELS])


def _write_compiler(folder: Path) -> None:
    """Write a script that runs the compiler where it was unpacked."""
    tree = f"{folder}/cross/usr"
    own, there = f"{tree}/lib/gcc-cross/{TRIPLE}/{GCC}", f"{tree}/{TRIPLE}"
    headers = [f"{there}/include/c++/{GCC}", f"{there}/include/c++/{GCC}/{TRIPLE}"]
    headers += [f"{own}/include", f"{there}/include"]
    words = [f"{tree}/bin/{TRIPLE}-g++-{GCC}", f"-B{own}", f"-B{there}/bin", f"-L{there}/lib"]
    words += [word for header in headers for word in ("-isystem", header)]
    script = folder / "c++"
    text = f'#!/bin/sh\nLD_LIBRARY_PATH={tree}/lib/x86_64-linux-gnu exec {" ".join(words)} "$@"\n'
    script.with_suffix(".new").write_text(text)
    script.with_suffix(".new").chmod(0o755)
    script.with_suffix(".new").replace(script)
