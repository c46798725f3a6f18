"""Compiles CUDA kernels: by nvcc into a fatbin of every target, else by NVRTC for one GPU.

nvcc comes with CUDA's toolkit or the package nvidia-cuda-nvcc; NVRTC, which the extras that run
plans install, is enough, and takes the place of an nvcc that fails. The sources include no header
of CUDA's, so NVRTC needs none.
"""

import os
import shutil
import subprocess
import sysconfig
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims
from nemotrt.engines.backends.tensorrt.device.kernel_set import KernelSet
from nemotrt.errors import ChildProcessFailedError, EnvironmentUnfitError
from nemotrt.needs import CUDA, NVRTC, pip_install

KERNELS_FILE = "mamba.fatbin"
TARGETS = ("8.0", "8.6", "9.0")  # A100, A10G, H100
NVRTC_MODULE = "cuda.bindings.nvrtc"
STANDARD = "-std=c++17"
INSTALL = pip_install(CUDA.requirement, NVRTC.requirement)
TOOLKIT = Path("/usr/local/cuda/bin/nvcc")


def compile_image(dims: KernelDims, compute_capability: str, target: Path) -> str:
    """Write the Mamba kernels to `target`, for every GPU of TARGETS; return what compiled them.

    Arguments and errors are those of compile_kernels.
    """
    return compile_kernels(dims.kernels, compute_capability, target, TARGETS)


def compile_kernels(
    kernels: KernelSet, compute_capability: str, target: Path, others: tuple[str, ...] = ()
) -> str:
    """Write the kernels to `target`, for cuLibraryLoadData; return what compiled them.

    Args:
        kernels: what to compile.
        compute_capability: of the GPU that must be served, such as "8.6".
        target: the file.
        others: GPUs that are served too where nvcc compiles.

    Raises:
        EnvironmentUnfitError: there is neither nvcc nor NVRTC.
        ChildProcessFailedError: nvcc refuses and there is no NVRTC, or NVRTC refuses.
    """
    nvcc, refusal = find_nvcc(), None
    if nvcc is not None:
        try:
            _by_nvcc(nvcc, kernels, sorted({*others, compute_capability}), target)
            return "nvcc"
        except ChildProcessFailedError as error:  # an old one, or one without a host compiler
            refusal = error
    try:
        nvrtc = load_nvrtc()
    except EnvironmentUnfitError as error:
        raise refusal or error from None
    target.write_bytes(_by_nvrtc(nvrtc, kernels, compute_capability))
    return "nvrtc"


def find_nvcc() -> Path | None:
    """Return nvcc: from CUDACXX, the path, the toolkit's usual place, or its package."""
    packaged = sorted(Path(sysconfig.get_path("purelib")).glob("nvidia/cu*/bin/nvcc"))
    found = [shutil.which(os.environ.get("CUDACXX", "")), shutil.which("nvcc"), TOOLKIT, *packaged]
    return next((Path(path) for path in found if path and Path(path).is_file()), None)


def load_nvrtc() -> Any:
    """Return cuda-python's module of NVRTC, whose library is there.

    Raises:
        EnvironmentUnfitError: it is not.
    """
    try:
        module = import_module(NVRTC_MODULE)
        module.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        raise EnvironmentUnfitError(
            f"compiling the Mamba plugins' kernels needs nvcc or NVRTC: {INSTALL}."
        ) from error
    return module


def check_compiler() -> None:
    """Raise EnvironmentUnfitError unless something here compiles kernels."""
    if find_nvcc() is None:
        load_nvrtc()


def _by_nvcc(nvcc: Path, kernels: KernelSet, capabilities: list[str], target: Path) -> None:
    """Compile one fatbin with machine code for each GPU."""
    names = [capability.replace(".", "") for capability in capabilities]
    codes = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in names]
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / KERNELS_FILE
        source = str(kernels.folder / kernels.main)
        command = [
            str(nvcc),
            "-fatbin",
            STANDARD,
            *kernels.options,
            *codes,
            source,
            "-o",
            str(image),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = " ".join((done.stderr or done.stdout).splitlines()[-5:])
            raise ChildProcessFailedError(
                f"nvcc ended with code {done.returncode}: {last} ({' '.join(command)})"
            )
        shutil.copyfile(image, target)


def _by_nvrtc(nvrtc: Any, kernels: KernelSet, compute_capability: str) -> bytes:
    """Return machine code for one GPU."""
    texts = kernels.sources()
    main = texts.pop(kernels.main)
    architecture = f"--gpu-architecture=sm_{compute_capability.replace('.', '')}"
    options = [option.encode() for option in (architecture, STANDARD, *kernels.options)]
    bodies, names = ([item.encode() for item in part] for part in (texts.values(), texts))

    def call(name: str, *arguments: Any) -> Any:
        status, *values = getattr(nvrtc, name)(*arguments)
        if int(status) != 0:
            raise ChildProcessFailedError(f"{name} failed: {status!r}. {log()}".rstrip())
        return values[0] if values else None

    def log() -> str:
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        text = bytearray(size)
        nvrtc.nvrtcGetProgramLog(program, text)
        return " ".join(text.rstrip(b"\0").decode(errors="replace").splitlines()[-5:])

    status, program = nvrtc.nvrtcCreateProgram(
        main.encode(), kernels.main.encode(), len(bodies), bodies, names
    )
    if int(status) != 0:
        raise ChildProcessFailedError(f"nvrtcCreateProgram failed: {status!r}.")
    try:
        call("nvrtcCompileProgram", program, len(options), options)
        image = bytearray(call("nvrtcGetCUBINSize", program))
        call("nvrtcGetCUBIN", program, image)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return bytes(image)
