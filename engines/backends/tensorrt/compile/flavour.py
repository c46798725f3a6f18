"""The two TensorRT packages that compile plans, and which of them a target needs.

TensorRT for RTX compiles ahead of time, without a GPU, for the compute capabilities in
AHEAD_OF_TIME. Ordinary TensorRT compiles for the GPU of the host that it runs on.
"""

from dataclasses import dataclass
from importlib import util
from importlib.metadata import version

from nemotrt.engines.backends.protocol.local_gpu import local_compute_capability
from nemotrt.engines.backends.tensorrt.graph.fitness import AHEAD_OF_TIME, unfit
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.needs import RTX_BINDINGS, RTX_LIBS, TENSORRT, Package, install

RTX_MODULE = "tensorrt_rtx_bindings"
HOST_MODULE = "tensorrt"


@dataclass(frozen=True, slots=True)
class Flavour:
    """One of the two packages: `name` is its key in a manifest's tools."""

    name: str
    module: str
    packages: tuple[Package, ...]  # of one version; the last one says which
    is_ahead_of_time: bool
    extra: str  # of nemotrt, that runs its plans

    def install(self, version: str) -> str:
        """Return the line that installs all that runs the plans of a version."""
        return install(self.extra, *(f"{package.name}=={version}" for package in self.packages))

    def version(self) -> str:
        """Return the installed version."""
        found = self.packages[-1].installed()
        if found is None:
            package = self.packages[-1]
            raise EnvironmentUnfitError(f"{package.name} is not installed: {package.cure}.")
        return found


def flavours() -> tuple[Flavour, Flavour]:
    """Return the ahead-of-time flavour and the host's own."""
    rtx = (RTX_BINDINGS, RTX_LIBS)
    return (
        Flavour("tensorrt-rtx", RTX_MODULE, rtx, is_ahead_of_time=True, extra="rtx-run"),
        Flavour("tensorrt", HOST_MODULE, (TENSORRT,), is_ahead_of_time=False, extra="tensorrt"),
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
    if is_here and has_host and (fault := unfit(host.version(), has_plugins=has_plugins)) == "":
        return host
    if has_target and util.find_spec(rtx.module) is not None:
        return rtx
    if is_here and has_host:
        raise EnvironmentUnfitError(f"TensorRT {host.version()} {fault}.")
    if is_here:
        raise EnvironmentUnfitError(
            f"compiling for this host's own GPU needs TensorRT: {install('tensorrt')}."
        )
    if has_target:
        raise EnvironmentUnfitError(
            f"compiling TensorRT plans without a GPU needs TensorRT for RTX: {install('rtx')}."
        )
    raise EnvironmentUnfitError(
        f"compute capability {compute_capability} can't be compiled for ahead of time (only "
        f"{', '.join(AHEAD_OF_TIME)}); build on that GPU's host with {install('tensorrt')}."
    )


def tools(compute_capability: str, *, has_plugins: bool = False) -> dict[str, str]:
    """Return the versions of what a plan for the GPU depends on."""
    flavour = choose(compute_capability, has_plugins=has_plugins)
    return {"onnx": version("onnx"), flavour.name: flavour.version()}
