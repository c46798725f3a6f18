"""The stages of `check --kernels`: from cuda-python to the comparisons and the times."""

import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from nemotrt.build.check.kernels import draws, mamba
from nemotrt.build.check.kernels.device import device
from nemotrt.build.check.result.fault import CheckFaultError, Fault, Outcome, Stage, stage
from nemotrt.build.check.result.rows import KernelCheck, KernelRow
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda, cuda_api
from nemotrt.engines.backends.tensorrt.device.kernel_image import (
    INSTALL,
    check_compiler,
    compile_kernels,
)
from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary
from nemotrt.engines.backends.tensorrt.device.kernel_library import driver as driver_api
from nemotrt.engines.backends.tensorrt.device.kernel_set import KernelSet
from nemotrt.engines.backends.tensorrt.draws.tables import SAMPLER
from nemotrt.engines.backends.tensorrt.graph.fitness import LEAST, too_old
from nemotrt.engines.runtime.sampling.draws import CompiledDraws
from nemotrt.errors import EnvironmentUnfitError, NemotrtError

CURE_BINDINGS = f"Install it: {INSTALL}."
CURE_GPU = f"Run this on a GPU of compute capability {LEAST} or later (A100, A10G, L4, H100, ...)."
CURE_COMPILER = f"Install what compiles: {INSTALL}, and a C++ compiler (apt-get install g++)."
CURE_MEMORY = "Free the GPU's memory (`nvidia-smi` shows who holds it) and run this again."

Run = Callable[[Cuda, KernelLibrary], list[KernelRow]]
Work = tuple[str, KernelSet, Run]  # what the progress line calls it, its kernels, what it does


def work() -> list[Work]:
    """Return all that is run: its size is fixed, so that its time is bounded."""
    return [
        *(
            (
                f"Mamba kernels, {case.name}",
                case.dims.kernels,
                partial(mamba.check_mamba, case=case),
            )
            for case in mamba.CASES
        ),
        *(
            (f"draws, {case.size} {case.kind}", SAMPLER, partial(draws.check_draws, case=case))
            for case in draws.CASES
        ),
        *(
            (f"draws, {batch} sequences", SAMPLER, partial(draws.time_draws, batch=batch))
            for batch in draws.BATCHES
        ),
    ]


def check_kernels(found: KernelCheck, report: Callable[[str], None] = lambda text: None) -> None:
    """Note in `found` what holds; a fault of the tree ends in `faults`, and none is raised.

    `report` is told what is under way.
    """
    try:
        api = _open(found)
        everything = work()
        libraries = _libraries(found, {kernels for _, kernels, _ in everything}, report)
        for name, kernels, run in everything:
            report(name)
            _run(found, api, libraries[kernels], name, run)
    except CheckFaultError as error:
        found.faults.append(error.fault)


def gpu_identity() -> tuple[str, str] | None:
    """Return name and UUID of CUDA's device 0; None where there is none to be asked."""
    try:
        with device(cuda_api()) as cuda:
            return cuda.identity
    except (NemotrtError, RuntimeError):  # RuntimeError is cuda-python's own
        return None


def _open(found: KernelCheck) -> Any:
    """Return the CUDA runtime, once this machine is known to have what is needed."""
    try:
        api = cuda_api()
        driver_api()
    except EnvironmentUnfitError as error:
        what = "it is not installed."
        raise CheckFaultError(
            Fault(Stage.BINDINGS, what, Outcome.LACKING, CURE_BINDINGS)
        ) from error
    with stage(Stage.DRIVER), device(api) as cuda:
        found.compute_capability = cuda.compute_capability
    if too_old(found.compute_capability):
        what = f"compute capability {found.compute_capability} is below {LEAST}."
        raise CheckFaultError(Fault(Stage.GPU, what, Outcome.LACKING, CURE_GPU))
    with stage(Stage.COMPILER, CURE_COMPILER):
        check_compiler()
        CompiledDraws(1, 1)  # what the sampler's tokens are compared with
    return api


def _libraries(
    found: KernelCheck, sets: Iterable[KernelSet], report: Callable[[str], None]
) -> dict[KernelSet, KernelLibrary]:
    """Return each set of kernels, compiled for this GPU and loaded by its driver."""
    libraries = {}
    for kernels in sorted(sets, key=lambda one: (one.purpose, one.options)):
        report(f"compiling {kernels.main}")
        with tempfile.TemporaryDirectory() as folder, stage(Stage.COMPILE):
            image = Path(folder) / "image"
            found.compiler = compile_kernels(kernels, str(found.compute_capability), image)
            data = image.read_bytes()
        with stage(Stage.LOAD):
            libraries[kernels] = KernelLibrary(data, kernels.names, kernels.purpose)
            libraries[kernels].load()
    return libraries


def _run(found: KernelCheck, api: Any, library: KernelLibrary, name: str, run: Run) -> None:
    """Add what one piece of work gives; without the memory for it, the others may still go on.

    Raises:
        CheckFaultError: a call failed, after which CUDA takes no other.
    """
    with stage(Stage.LAUNCH):
        try:
            with device(api) as cuda:
                rows = run(cuda, library)
        except EnvironmentUnfitError:
            what = f"the GPU has too little free memory for {name}."
            found.faults.append(Fault(Stage.MEMORY, what, Outcome.LACKING, CURE_MEMORY))
            return
    found.rows += rows
    found.faults += [
        Fault(
            Stage.COMPARE,
            f"{row.kernel} ({row.case}, {row.sequences} sequences of {row.tokens} tokens): "
            f"{item.what} is off by {item.error:.3g}, the bound is {item.bound:g} ({item.why}).",
            Outcome.WRONG,
        )
        for row in rows
        for item in row.comparisons
        if not item.is_right
    ]
