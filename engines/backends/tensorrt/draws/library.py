"""The sampler's kernels for the GPU at hand: compiled at first use, kept in the user's cache."""

import hashlib
import logging
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from nemotrt.engines.backends.tensorrt.device.kernel_image import (
    INSTALL,
    STANDARD,
    compile_kernels,
    find_nvcc,
    load_nvrtc,
)
from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary
from nemotrt.engines.backends.tensorrt.draws.tables import SAMPLER
from nemotrt.errors import EnvironmentUnfitError, NemotrtError
from nemotrt.files.user_cache import user_cache, usual_cache
from nemotrt.files.writing import write_file

DIGEST_BYTES = hashlib.sha256().digest_size
log = logging.getLogger("nemotrt.engine")


def open_sampler_library(compute_capability: str) -> KernelLibrary:
    """Return the kernels for a GPU, from the user's cache or compiled now.

    Args:
        compute_capability: the GPU's, such as "8.6".

    Raises:
        EnvironmentUnfitError: nothing here compiles kernels.
        ChildProcessFailedError: what does refuses these.
    """
    key = SAMPLER.digest(STANDARD, compute_capability, compilers())
    image = _cached(key)
    if image is None:
        image = _compiled(compute_capability)
        _keep(key, image)
    return KernelLibrary(image, SAMPLER.names, SAMPLER.purpose)


def compilers() -> str:
    """Return what compiles kernels here, with versions.

    Raises:
        EnvironmentUnfitError: nothing does.
    """
    found = []
    nvcc = find_nvcc()
    if nvcc is not None:
        done = subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=False)
        found.append(f"{nvcc}: {done.stdout}")
    with suppress(EnvironmentUnfitError):
        found.append(f"NVRTC {load_nvrtc().nvrtcVersion()}")
    if not found:
        raise EnvironmentUnfitError(f"sampling on the GPU needs nvcc or NVRTC: {INSTALL}.")
    return "; ".join(found)


def _compiled(compute_capability: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "image"
        compile_kernels(SAMPLER, compute_capability, target)
        return target.read_bytes()


def _name(key: str) -> str:
    return f"sampler-{key}"


def _cached(key: str) -> bytes | None:
    """Return the image that was kept under a key, if it is there and whole."""
    usual = usual_cache()
    for folder in (usual, user_cache()):
        if folder is None:
            continue
        with suppress(OSError):
            data = (folder / _name(key)).read_bytes()
            if data[:DIGEST_BYTES] == _seal(key, data[DIGEST_BYTES:]):
                return data[DIGEST_BYTES:]
    return None


def _seal(key: str, image: bytes) -> bytes:
    """Return what stands before an image in its file, so that no other is taken for it."""
    return hashlib.sha256(key.encode() + image).digest()


def _keep(key: str, image: bytes) -> None:
    """Keep the image for the next start, if the disk takes it."""
    file = user_cache() / _name(key)
    try:
        write_file(file, _seal(key, image) + image)
    except (OSError, NemotrtError) as error:
        log.warning("the sampler's kernels are compiled anew at the next start: %s", error)
