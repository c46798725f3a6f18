"""What each deed needs of a machine, told once: packages, versions, the extra that brings them.

Every line that tells a user what to install is made here; `nemotrt doctor` reads the same table.
"""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

# Source: CUDA Toolkit 13.0 release notes, minimum required driver version on Linux.
CUDA_13_DRIVER = 580
CURE_DRIVER = (
    "Install NVIDIA's driver, or give the container its GPU, with "
    f"NVIDIA_DRIVER_CAPABILITIES=compute,utility. CUDA 13 needs driver {CUDA_13_DRIVER} or later; "
    "`nvidia-smi` says which there is."
)


def old_driver(found: str, least: int = CUDA_13_DRIVER) -> str:
    """Return what is said of a driver that is too old for CUDA 13, by its version."""
    return (
        f"the driver {found} is too old: CUDA 13 needs {least} or later; "
        "update NVIDIA's driver and restart"
    )


@dataclass(frozen=True, slots=True)
class Package:
    """A distribution, what it is for, and how it comes here.

    Attributes:
        name: as the package index has it.
        purpose: in a few words.
        extra: of nemotrt, that brings it; "" for the base installation.
        least: the first version that does.
        below: the first version whose API nobody here has read; "" for none.
        modules: what is imported of it, to tell that it is really there.
        part: of the distribution, an extra of its own.
        also: other distributions that hold the same.
        apart: why it can't be installed beside nemotrt, and what to do; "" where it can.
    """

    name: str
    purpose: str
    extra: str = ""
    least: str = ""
    below: str = ""
    modules: tuple[str, ...] = ()
    part: str = ""
    also: tuple[str, ...] = ()
    apart: str = ""

    @property
    def requirement(self) -> str:
        """What pip is asked for, as in pyproject.toml."""
        part = f"[{self.part}]" if self.part else ""
        bounds = ([f">={self.least}"] if self.least else []) + (
            [f"<{self.below}"] if self.below else []
        )
        return f"{self.name}{part}{','.join(bounds)}"

    @property
    def cure(self) -> str:
        """What to do where it is missing."""
        return self.apart or install(self.extra)

    def load(self, module: str, what: str, *, cure: str = "", end: str = ".") -> Any:
        """Return a module of it, which `what` needs.

        Raises:
            EnvironmentUnfitError: it is not installed; the message has its cure, and the end.
        """
        try:
            return import_module(module)
        except ImportError as error:
            from nemotrt.errors import EnvironmentUnfitError  # by click, which may be missing too

            line = f"{what} needs {self.name}: {cure or self.cure}{end}"
            raise EnvironmentUnfitError(line) from error

    def installed(self) -> str | None:
        """Return the installed version, or None."""
        for name in (self.name, *self.also):
            try:
                return version(name)
            except PackageNotFoundError:
                continue
        return None

    def fault(self) -> str:
        """Return why the package that is here does not do, or "" if it does or is not here."""
        found = self.installed()
        if found is None:
            return ""
        if (self.least and numbers(found) < numbers(self.least)) or (
            self.below and numbers(found) >= numbers(self.below)
        ):
            return f"{self.name} {found} is here, {self.requirement} is needed"
        lost = [name for name in self.modules if not _is_found(name)]
        return f"{self.name} {found} is here without its module {lost[0]}" if lost else ""


def install(extra: str, *more: str) -> str:
    """Return the line that installs an extra of nemotrt, and more; "" is the base installation."""
    return pip_install(f"nemotrt[{extra}]" if extra else "nemotrt", *more)


def pip_install(*requirements: str) -> str:
    """Return the line that installs distributions, as a shell takes it."""
    return " ".join(["pip install", *map(shlex.quote, requirements)])


def cure_of_module(module: str) -> str:
    """Return what to do where a module can't be imported: its package's cure."""
    every = {package for packages in EXTRAS.values() for package in packages}
    found = [each for each in every if module.split(".")[0] in each.modules]
    return found[0].cure if found else install("")


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with."""
    leading = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, leading[0].split("."))) if leading else ()


def _is_found(module: str) -> bool:
    """Whether a module can be imported, as far as is known without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def nothing() -> None:
    """Check nothing."""


def any_gpu(compute_capability: str) -> str:
    """Take any GPU."""
    return ""


@dataclass(frozen=True, slots=True)
class Ability:
    """Something that a user may want to do.

    Attributes:
        name: in words.
        packages: all of them are needed.
        extra: brings them together; "" where each package's own does.
        needs_gpu: it runs on an NVIDIA GPU.
        least_driver: the driver's first major version that does; 0 for any.
        unsupported: says of a compute capability why the GPU does not do; "" if it does.
        check: raises EnvironmentUnfitError, with what is missing beside them.
    """

    name: str
    packages: tuple[Package, ...] = ()
    extra: str = ""
    needs_gpu: bool = False
    least_driver: int = 0
    unsupported: Callable[[str], str] = any_gpu
    check: Callable[[], object] = nothing

    def missing(self) -> list[str]:
        """Return what to install, each line once."""
        absent = [package for package in self.packages if package.installed() is None]
        cures = [install(self.extra) if self.extra else package.cure for package in absent]
        return list(dict.fromkeys(cures))

    def faults(self) -> list[str]:
        """Return what is wrong with the packages that are here, each with its cure."""
        lines = [(package.fault(), package) for package in self.packages]
        return [
            f"{fault}: {install(self.extra) if self.extra else package.cure}"
            for fault, package in lines
            if fault
        ]


@dataclass(frozen=True, slots=True)
class Need:
    """What opening an engine asks of a machine.

    `check` raises EnvironmentUnfitError where it is not there, with the cure.
    """

    name: str
    check: Callable[[], object]


# The base installation, as far as an ability hangs on it.
ONNX = Package("onnx", "write the graph", least="1.20", modules=("onnx",))
ONNXRUNTIME = Package(
    "onnxruntime", "run engines on the CPU", least="1.32", modules=("onnxruntime",)
)
TOKENIZERS = Package("tokenizers", "text to tokens", least="0.21", modules=("tokenizers",))
NVML = Package("nvidia-ml-py", "read the GPU's sensors", least="12.570", modules=("pynvml",))
HTTPTOOLS = Package("httptools", "measure a server", least="0.6", modules=("httptools",))

# Compile plans anywhere, and run them on a GPU's host.
RTX_BINDINGS = Package(
    "tensorrt-rtx-cu13-bindings",
    "compile TensorRT plans without a GPU",
    "rtx",
    least="1.7",
    below="2",
    modules=("tensorrt_rtx_bindings",),
    also=("tensorrt-rtx-cu12-bindings",),
)
RTX_LIBS = Package(
    "tensorrt-rtx-cu13-libs",
    "compile TensorRT plans without a GPU",
    "rtx",
    least="1.7",
    below="2",
    modules=("tensorrt_rtx_libs",),
    also=("tensorrt-rtx-cu12-libs", "tensorrt-rtx"),
)
CUDA = Package(
    "cuda-python",
    "run TensorRT plans on the GPU host",
    "rtx-run",
    least="13",
    below="14",
    modules=("cuda.bindings",),
)
NVRTC = Package(
    "nvidia-cuda-nvrtc", "compile our CUDA kernels on the GPU host", "rtx-run", "13", "14"
)
# Source: NVIDIA/TensorRT include/NvInfer.h by tag: KVCacheUpdate and RotaryEmbedding are in 10.15.
TENSORRT = Package(
    "tensorrt",
    "compile and run TensorRT plans on the GPU host",
    "tensorrt",
    least="10.15",
    below="12",
    modules=("tensorrt",),
    also=("tensorrt-cu13", "tensorrt-cu12"),
)
TENSORRT_LLM = Package(
    "tensorrt-llm",
    "serve with TensorRT-LLM on the GPU host",
    "tensorrt-llm",
    least="1.2.1",
    modules=("tensorrt_llm",),
    apart=(
        "TensorRT-LLM 1.2 can't be installed beside nemotrt (it wants numpy < 2, onnx < 1.20 and "
        "llguidance 0.7.29): use NVIDIA's image, or an environment of its own: "
        "pip install 'tensorrt-llm>=1.2.1'"
    ),
)
# Serve.
LLGUIDANCE = Package("llguidance", "grammars", "serve", least="1.9.1", modules=("llguidance",))
PROMETHEUS = Package("prometheus_client", "metrics", least="0.21", modules=("prometheus_client",))
STARLETTE = Package("starlette", "the endpoint", "serve", least="0.46", modules=("starlette",))
TRITONCLIENT = Package(
    "tritonclient",
    "gRPC to tritonserver",
    "serve",
    least="2.60",
    modules=("tritonclient", "grpc"),
    part="grpc",
)
UVICORN = Package("uvicorn", "the endpoint's server", "serve", least="0.34", modules=("uvicorn",))
# The rest.
TRANSFORMERS = Package(
    "transformers",
    "convert tokenizers that have no tokenizer.json",
    "transformers",
    least="5.16",
    modules=("transformers",),
)
LM_EVAL = Package(
    "lm-eval", "tasks of lm-eval", "tasks", least="0.4.9", below="0.5", modules=("lm_eval",)
)
PYARROW = Package("pyarrow", "tables as Parquet", "parquet", least="17", modules=("pyarrow",))
MATPLOTLIB = Package("matplotlib", "plots as PNG", "plots", least="3.9", modules=("matplotlib",))

# Spans of requests. The exporter and the SDK are released together.
OTEL_SDK = Package(
    "opentelemetry-sdk",
    "spans of requests",
    "tracing",
    least="1.45",
    below="2",
    modules=("opentelemetry.sdk.trace",),
)
OTLP = Package(
    "opentelemetry-exporter-otlp-proto-http",
    "send spans to a collector",
    "tracing",
    least="1.45",
    below="2",
    modules=("opentelemetry.exporter.otlp.proto.http",),
)

# The extras of pyproject.toml; a test holds the two together.
EXTRAS: dict[str, tuple[Package, ...]] = {
    "rtx": (RTX_BINDINGS, RTX_LIBS),
    "rtx-run": (CUDA, NVRTC, RTX_BINDINGS, RTX_LIBS),
    "tensorrt": (CUDA, NVRTC, TENSORRT),
    "tensorrt-llm": (TENSORRT_LLM,),
    "serve": (LLGUIDANCE, STARLETTE, TRITONCLIENT, UVICORN),
    "tracing": (OTLP, OTEL_SDK),
    "transformers": (TRANSFORMERS,),
    "tasks": (LM_EVAL,),
    "parquet": (PYARROW,),
    "plots": (MATPLOTLIB,),
}
