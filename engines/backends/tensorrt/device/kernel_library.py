"""The compiled kernels on the GPU, launched through cuda-python's driver API."""

import ctypes
from collections.abc import Sequence
from typing import Any

from nemotrt.engines.backends.tensorrt.device.kernel_dims import KERNELS, PURPOSE
from nemotrt.engines.backends.tensorrt.device.stream import failed_call
from nemotrt.needs import CUDA, pip_install

MODULE = "cuda.bindings.driver"


class KernelLibrary:
    """One image of kernels, loaded when the first is launched; it stays loaded."""

    def __init__(
        self, image: bytes, names: tuple[str, ...] = KERNELS, purpose: str = PURPOSE
    ) -> None:
        """Take the image that was compiled of a KernelSet, its names and its purpose."""
        self._image, self._names, self._purpose = image, names, purpose
        self._kernels: dict[str, int] = {}

    def launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        threads: int,
        arguments: Sequence[Any],
        stream: int,
    ) -> None:
        """Enqueue a kernel on a stream of the current context.

        Args:
            name: the kernel.
            grid: blocks along x, y, z.
            threads: of a block.
            arguments: the kernel's parameters in order, as ctypes values.
            stream: the CUDA stream's handle.
        """
        self.load()
        places = (ctypes.c_void_p * len(arguments))(*map(ctypes.addressof, arguments))
        shape = (*grid, threads, 1, 1)
        pointer = ctypes.addressof(places)
        api = driver()
        self._check(api, "cuLaunchKernel", self._kernels[name], *shape, 0, stream, pointer, 0)

    def load(self) -> None:
        """Load the image and find its kernels, once.

        Raises:
            EnvironmentUnfitError: cuda-python is not installed.
            NemotrtError: the driver refuses the image.
        """
        if self._kernels:
            return
        api = driver()
        library = self._check(api, "cuLibraryLoadData", self._image, [], [], 0, [], [], 0)
        for name in self._names:
            kernel = self._check(api, "cuLibraryGetKernel", library, name.encode())
            self._kernels[name] = int(kernel)

    def _check(self, api: Any, name: str, *arguments: Any) -> Any:
        """Call a function of the driver API; return its value, if it has one."""
        status, *values = getattr(api, name)(*arguments)
        if int(status) != 0:
            what = f"{name} failed: {status!r} ({self._purpose}' kernels)."
            raise failed_call(int(status), what)
        return values[0] if values else None


def driver() -> Any:
    """Return cuda-python's module of the driver API.

    Raises:
        EnvironmentUnfitError: it is not installed.
    """
    cure = pip_install(CUDA.requirement)
    return CUDA.load(MODULE, "launching our kernels", cure=cure)
