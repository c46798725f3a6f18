"""The real compilers over the Mamba kernels and plugins, in environments of their own."""

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nemotrt.engines.backends.tensorrt.device import kernel_image
from nemotrt.engines.backends.tensorrt.device.kernel_dims import (
    MAX_STATIC_SHARED_BYTES,
    KernelDims,
)
from support.peers import peer_python

pytestmark = pytest.mark.slow
NINE_B = KernelDims(128, 80, 128, 8, 4)
EIGHT_B = KernelDims(128, 64, 128, 8, 4)
ROOT = Path(kernel_image.__file__).parents[5]  # of the package
TOOLS = "nvidia/cu13/bin"
REGISTERS = 65536  # of a multiprocessor, 8.0 to 9.0. Source: CUDA C++ Programming Guide
SHARED_BYTES = {"80": 164 << 10, "86": 100 << 10, "90": 228 << 10}  # of one. Source: the same
RESERVED_BYTES = 1024  # of each block. Source: the same


@pytest.fixture(scope="module")
def cuda_packages() -> Path:
    """Return the folder of an environment's packages: nvcc, NVRTC, cuobjdump."""
    python = peer_python("cuda")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.check_output([python, "-c", code], text=True).strip())


def resources(packages: Path, image: Path) -> dict[tuple[str, str], dict[str, int]]:
    """Return (GPU, kernel) -> what cuobjdump says that it uses."""
    command = [packages / TOOLS / "cuobjdump", "--dump-resource-usage", image]
    text = subprocess.check_output(command, text=True)
    found, gpu, kernel = {}, "", ""
    for line in text.splitlines():
        if match := re.search(r"arch = sm_(\d+)", line):
            gpu = match[1]
        elif match := re.search(r"Function (\w+):", line):
            kernel = match[1]
        elif "REG:" in line:
            found[gpu, kernel] = {k: int(v) for k, v in re.findall(r"([A-Z]+):(\d+)", line)}
    return found


@pytest.mark.parametrize("dims", [NINE_B, EIGHT_B], ids=["9B", "8B"])
def test_nvcc_makes_one_fatbin_that_fits(
    dims: KernelDims, cuda_packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machine code for the three GPUs; three prefill blocks a multiprocessor, no spills."""
    monkeypatch.setenv("CUDACXX", str(cuda_packages / TOOLS / "nvcc"))
    image = tmp_path / "image"
    assert kernel_image.compile_image(dims, "8.0", image) == "nvcc"
    found = resources(cuda_packages, image)
    assert {gpu for gpu, _ in found} == set(SHARED_BYTES)
    kernel_image.compile_image(dims, "9.0", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == image.read_bytes()
    for (gpu, kernel), used in found.items():
        assert used["LOCAL"] == 0 and used["STACK"] <= 16, (gpu, kernel)
        threads = dims.prefill_threads if kernel == "ssd_prefill" else 128
        by_registers = REGISTERS // (-(-used["REG"] // 8) * 8 * threads)
        if kernel == "ssd_prefill":
            assert dims.tile_bytes <= used["SHARED"] <= dims.tile_bytes + RESERVED_BYTES
            assert used["SHARED"] <= MAX_STATIC_SHARED_BYTES
            by_memory = SHARED_BYTES[gpu] // (dims.tile_bytes + RESERVED_BYTES)
            assert min(by_registers, by_memory) >= 3
        else:
            assert used["SHARED"] == 0 and by_registers >= 7


def test_the_instructions_are_those_that_were_meant(
    cuda_packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten 16 byte loads before the first store in the decode kernel; tensor cores in prefill."""
    monkeypatch.setenv("CUDACXX", str(cuda_packages / TOOLS / "nvcc"))
    image = tmp_path / "image"
    kernel_image.compile_image(NINE_B, "8.6", image)
    command = [cuda_packages / TOOLS / "cuobjdump", "-sass", "-arch", "sm_86", image]
    path = f"{cuda_packages / TOOLS}:{os.environ['PATH']}"  # nvdisasm is there too
    listing = subprocess.check_output(command, text=True, env=os.environ | {"PATH": path})
    code = dict(re.findall(r"Function : (\w+)(.*?)(?=Function :|\Z)", listing, re.DOTALL))
    moves = re.findall(r"(LDG|STG)\.E\.EF\.128", code["ssd_decode"])
    assert moves == ["LDG"] * 10 + ["STG"] * 10
    # scores 6 x 8, state read 8 x 8, tokens 12, state written 2 x 32: by hand, for one warp's code
    assert code["ssd_prefill"].count("HMMA.16816.F32.BF16") == 6 * 8 + 64 + 12 + 64
    assert "HMMA" not in code["ssd_decode"] + code["causal_conv"]


NVRTC = """
    import ctypes, sys
    from pathlib import Path
    from cuda.bindings import driver
    from nemotrt.engines.backends.tensorrt.device import kernel_image
    from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims
    from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary

    kernel_image.find_nvcc = lambda: None
    dims = KernelDims(128, 80, 128, 8, 4)
    for capability in ("8.0", "8.6", "9.0"):
        target = Path(sys.argv[1]) / capability
        assert kernel_image.compile_image(dims, capability, target) == "nvrtc"
    # The bindings take our arguments: what fails is the driver, or without one its library.
    try:
        driver.cuInit(0)
        cases = ({},)  # a driver is here: no launch of what is no kernel
    except Exception:
        cases = ({}, {"ssd_decode": 5})  # loading, then launching
    for kernels in cases:
        library = KernelLibrary(b"image")
        library._kernels = kernels
        try:
            library.launch("ssd_decode", (1, 1, 1), 32, [ctypes.c_int(1)], 7)
        except TypeError:
            raise
        except Exception:
            pass
"""


def test_nvrtc_compiles_the_same_sources(cuda_packages: Path, tmp_path: Path) -> None:
    """For each GPU; and the real bindings take what the driver is given."""
    command = [peer_python("cuda"), "-c", textwrap.dedent(NVRTC), tmp_path]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    for capability in ("8.0", "8.6", "9.0"):
        found = resources(cuda_packages, tmp_path / capability)
        assert {kernel for _, kernel in found} == {"causal_conv", "ssd_decode", "ssd_prefill"}


# What is wrong in the stubs of TensorRT 10.13, and what its binding's own source has: `in` is no
# name in Python; a default before a parameter without; an index lost; str is what it takes.
REPAIRS = {
    r"\bin: list\[": "inp: list[",
    r"channel_axis: int\) -> IScaleLayer": "channel_axis: int = ...) -> IScaleLayer",
    r"def get_aliased_input\(self: int\)": "def get_aliased_input(self, output_index: int)",
    r"name: FallbackString": "name: str",
}
MYPY = """
    [mypy]
    strict = True
    explicit_package_bases = True
    warn_unused_ignores = False
    mypy_path = {root}:{stubs}
    [mypy-tensorrt.*,tensorrt_bindings.*]
    follow_imports = silent
    [mypy-tensorrt_libs.*,onnx.*,onnxruntime.*,ml_dtypes.*,pynvml.*,transformers.*]
    ignore_missing_imports = True
    follow_imports = skip
"""


def test_the_plugins_have_tensorrt_s_types(tmp_path: Path) -> None:
    """Strict mypy over the plugins, with the stubs of ordinary TensorRT."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    python = peer_python("tensorrt-stubs")
    packages = Path(subprocess.check_output([python, "-c", code], text=True).strip())
    for name in ("tensorrt", "tensorrt_bindings"):
        for stub in (packages / name).glob("*.pyi"):
            text = stub.read_text()
            for wrong, right in REPAIRS.items():
                text = re.sub(wrong, right, text)
            target = tmp_path / "stubs" / name / stub.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    config = tmp_path / "mypy.ini"
    config.write_text(textwrap.dedent(MYPY).format(root=ROOT, stubs=tmp_path / "stubs"))
    command = [sys.executable, "-m", "mypy", "--config-file", config, "--cache-dir", tmp_path / "c"]
    done = subprocess.run(
        [*command, "-p", "nemotrt.engines.backends.tensorrt.plugins"],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stdout.splitlines() if "/stubs/" not in line]
    assert len(ours) == 1 and ours[0].startswith(("Found", "Success")), done.stdout[-2000:]
    assert "checked" in ours[0]
