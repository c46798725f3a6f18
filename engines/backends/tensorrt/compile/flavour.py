"""The two TensorRT packages that compile plans, and which of them a target needs.

TensorRT for RTX compiles ahead of time, without a GPU, for the compute capabilities in
AHEAD_OF_TIME. Ordinary TensorRT compiles for the GPU of the host that it runs on.
"""

from dataclasses import dataclass
from importlib import util
from importlib.metadata import PackageNotFoundError, version

from nemotrt.engines.backends.protocol.local_gpu import local_compute_capability
from nemotrt.errors import EnvironmentUnfitError

# Source: tried with tensorrt-rtx 1.7.1.116, 2026-11: these compile without a driver; 9.0 is not
# among its targets.
AHEAD_OF_TIME = {"8.0": "SM80", "8.6": "SM86", "8.9": "SM89"}
RTX_MODULE = "tensorrt_rtx_bindings"
RTX_INSTALL = "pip install 'nemotrt[rtx]'"
HOST_MODULE = "tensorrt"
HOST_INSTALL = "pip install 'nemotrt[tensorrt]'"
# Source: NVIDIA/TensorRT include/NvInfer.h by tag: KVCacheUpdate and RotaryEmbedding are in 10.15.
HOST_MIN_VERSION = (10, 15)


@dataclass(frozen=True, slots=True)
class Flavour:
    """One of the two packages: `name` is its key in a manifest's tools."""

    name: str
    module: str
    packages: tuple[str, ...]  # any of these holds the version
    is_ahead_of_time: bool

    def version(self) -> str:
        """Return the installed version."""
        for package in self.packages:
            try:
                return version(package)
            except PackageNotFoundError:
                continue
        raise EnvironmentUnfitError(f"no package {' or '.join(self.packages)} is installed.")


def flavours() -> tuple[Flavour, Flavour]:
    """Return the ahead-of-time flavour and the host's own."""
    rtx = ("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu12-libs", "tensorrt-rtx")
    host = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
    return (
        Flavour("tensorrt-rtx", RTX_MODULE, rtx, is_ahead_of_time=True),
        Flavour("tensorrt", HOST_MODULE, host, is_ahead_of_time=False),
    )


def choose(compute_capability: str, *, has_plugins: bool = False) -> Flavour:
    """Return the flavour that compiles for the GPU on this machine.

    For its own GPU a host's ordinary TensorRT comes first: it measures kernels there, and it alone
    has a plugin layer.

    Raises:
        EnvironmentUnfitError: neither can; the message says what to install where.
    """
    rtx, host = flavours()
    has_target = compute_capability in AHEAD_OF_TIME and not has_plugins
    is_here = compute_capability == local_compute_capability()
    has_host = util.find_spec(host.module) is not None
    if is_here and has_host and _is_new_enough(host):
        return host
    if has_target and util.find_spec(rtx.module) is not None:
        return rtx
    if is_here and has_host:
        wanted = ".".join(map(str, HOST_MIN_VERSION))
        raise EnvironmentUnfitError(
            f"TensorRT {host.version()} has no KV cache update; take {wanted} or later: "
            f"{HOST_INSTALL}."
        )
    if is_here:
        raise EnvironmentUnfitError(
            f"compiling for this host's own GPU needs TensorRT: {HOST_INSTALL}."
        )
    if has_target:
        raise EnvironmentUnfitError(
            f"compiling TensorRT plans without a GPU needs TensorRT for RTX: {RTX_INSTALL}."
        )
    raise EnvironmentUnfitError(
        f"compute capability {compute_capability} can't be compiled for ahead of time (only "
        f"{', '.join(AHEAD_OF_TIME)}); build on that GPU's host with {HOST_INSTALL}."
    )


def _is_new_enough(host: Flavour) -> bool:
    """Whether the host's TensorRT has the layers that the graph needs."""
    numbers = tuple(int(part) for part in host.version().split(".")[:2] if part.isdigit())
    return numbers >= HOST_MIN_VERSION


def tools(compute_capability: str, *, has_plugins: bool = False) -> dict[str, str]:
    """Return the versions of what a plan for the GPU depends on."""
    flavour = choose(compute_capability, has_plugins=has_plugins)
    return {"onnx": version("onnx"), flavour.name: flavour.version()}
