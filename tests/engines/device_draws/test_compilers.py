"""The real compilers over the sampler's kernels, and the real cuda-python before them."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from nemotrt.build.check.kernels.sampler_cases import likely
from nemotrt.engines.backends.tensorrt.device import kernel_image
from nemotrt.engines.backends.tensorrt.draws.tables import SAMPLER
from nemotrt.engines.runtime.sampling.draws import CompiledDraws, Turn
from nemotrt.engines.runtime.sampling.params import SamplingParams
from support.emulated_draws import Blocks, Device
from support.emulated_kernels import EmulatedKernels, compile_set
from support.peers import peer_python

pytestmark = pytest.mark.slow
ROOT = Path(kernel_image.__file__).parents[5]  # of the package
GPUS = ("8.0", "8.6", "9.0")
REGISTERS = 65536  # of a multiprocessor, 8.0 to 9.0. Source: CUDA C++ Programming Guide
THREADS = {"edit_logits": 256, "weigh_scores": 256, "choose_tokens": 1024, "feed_tokens": 128}


@pytest.fixture(scope="module")
def packages() -> Path:
    """Return the folder of an environment's packages: nvcc, NVRTC, cuobjdump."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.check_output([peer_python("cuda"), "-c", code], text=True).strip())


def tool(packages: Path, name: str) -> Path:
    return packages / "nvidia/cu13/bin" / name


def resources(packages: Path, image: Path) -> dict[str, dict[str, int]]:
    """Return kernel -> what cuobjdump says that it uses."""
    command = [tool(packages, "cuobjdump"), "--dump-resource-usage", image]
    text = subprocess.check_output(command, text=True)
    return {
        name: {key: int(value) for key, value in re.findall(r"([A-Z]+):(\d+)", used)}
        for name, used in re.findall(r"Function (\w+):\s+(.*)", text)
    }


def check_resources(packages: Path, image: Path) -> None:
    """No spills; a block of each kernel fits, and at least four of those that go by slices."""
    found = resources(packages, image)
    assert set(found) == set(SAMPLER.names) == set(THREADS)
    for name, used in found.items():
        assert used["LOCAL"] == used["STACK"] == 0, name
        blocks = REGISTERS // (-(-used["REG"] // 8) * 8 * THREADS[name])
        assert blocks >= (1 if name == "choose_tokens" else 4), (name, used)
        assert used["SHARED"] <= (10 << 10 if name == "choose_tokens" else 0), (name, used)


@pytest.mark.parametrize("capability", GPUS)
def test_nvcc_compiles_for_one_gpu(
    capability: str, packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDACXX", str(tool(packages, "nvcc")))
    image = tmp_path / "image"
    assert kernel_image.compile_kernels(SAMPLER, capability, image) == "nvcc"
    check_resources(packages, image)


NVRTC = """
    import sys
    from pathlib import Path
    from nemotrt.engines.backends.tensorrt.draws.tables import SAMPLER
    from nemotrt.engines.backends.tensorrt.plugins import kernel_image

    kernel_image.find_nvcc = lambda: None
    for capability in sys.argv[2:]:
        target = Path(sys.argv[1]) / capability
        assert kernel_image.compile_kernels(SAMPLER, capability, target) == "nvrtc"
"""


def test_nvrtc_compiles_the_same_sources(packages: Path, tmp_path: Path) -> None:
    command = [peer_python("cuda"), "-c", textwrap.dedent(NVRTC), tmp_path, *GPUS]
    subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    for capability in GPUS:
        check_resources(packages, tmp_path / capability)


def test_the_arithmetic_is_not_contracted(packages: Path, tmp_path: Path) -> None:
    """Nor approximate: each product, sum and quotient is rounded as on the CPU."""
    listing = tmp_path / "listing"
    source = SAMPLER.folder / SAMPLER.main
    options = [kernel_image.STANDARD, *SAMPLER.options, "-arch=sm_80", "-ptx"]
    command = [tool(packages, "nvcc"), *options, source, "-o", listing]
    subprocess.run(command, check=True, capture_output=True)
    text = listing.read_text()
    floats = set(re.findall(r"^\s+((?:add|sub|mul|div|fma|mad|rcp|ex2)\S*f(?:32|64))", text, re.M))
    assert floats == {
        *(f"{name}.rn.f32" for name in ("add", "sub", "mul", "div")),
        *(f"{name}.rn.f64" for name in ("add", "sub", "mul")),
    }


LAUNCH = """
    import ctypes, sys
    import numpy as np
    sys.path += sys.argv[3:]  # what else the package imports is in the tests' environment
    from nemotrt.engines.backends.tensorrt.draws.draws import DeviceDraws
    from nemotrt.engines.backends.tensorrt.draws.tables import SAMPLER
    from nemotrt.engines.runtime.sampling.draws import NumpyDraws, Turn
    from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary
    from nemotrt.engines.runtime.sampling.params import SamplingParams

    class HostCuda:  # one memory; work is done at once
        stream, kept = 7, []
        def allocate(self, num_bytes):
            self.kept.append(np.zeros(num_bytes + 16, np.uint8))
            return type("Buffer", (), {"address": self.kept[-1].ctypes.data})
        def host_array(self, shape, dtype):
            return np.zeros(shape, dtype)
        def to_device(self, target, source):
            ctypes.memmove(target, source.ctypes.data, source.nbytes)
        def to_host(self, target, source):
            ctypes.memmove(target.ctypes.data, source, target.nbytes)
        def zero(self, target, num_bytes):
            ctypes.memset(target, 0, num_bytes)
        event = record = wait = lambda *_: 0

    rows = np.load(sys.argv[1])
    library = KernelLibrary(b"an image", SAMPLER.names, SAMPLER.purpose)
    draws = DeviceDraws(HostCuda(), library, rows.shape[1], 2, scorer=NumpyDraws())
    params = SamplingParams(seed=4, temperature=1.0, top_p=0.9, repetition_penalty=1.5)
    draw = draws.open(1, params, (1, 2), ())
    found = []
    for row in range(len(rows)):
        draws.choose(rows.ctypes.data, [Turn(row, draw)])
        found.append(draws.chosen()[0].token)
        ids = np.array([7, 7], np.int64)
        draws.feed(ids.ctypes.data, [-1, 1])
        assert ids.tolist() == [7, found[-1]]
    np.save(sys.argv[2], found)
"""


def test_cuda_python_launches_what_we_ask_for(tmp_path: Path) -> None:
    """Over a stand-in for the driver's library: structures by value and every address arrive."""
    library = compile_set(SAMPLER, harness="libcuda.cpp")
    shutil.copyfile(library, tmp_path / "libcuda.so.1")
    rows = likely(np.random.default_rng(3), 700, 5)
    np.save(tmp_path / "rows.npy", rows)
    files = [tmp_path / "rows.npy", tmp_path / "tokens.npy"]
    paths = {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}

    command = [peer_python("cuda"), "-c", textwrap.dedent(LAUNCH), *files, *filter(None, sys.path)]
    subprocess.run(command, check=True, env=os.environ | paths)
    draws = CompiledDraws(700, 1)
    params = SamplingParams(seed=4, temperature=1.0, top_p=0.9, repetition_penalty=1.5)
    memory = draws.open(params, (1, 2), ())
    choices = [draws.choose(rows, [Turn(row, memory)])[0] for row in range(5)]
    assert np.load(tmp_path / "tokens.npy").tolist() == [c.token for c in choices if c]


@pytest.mark.parametrize("threads", [1, 32])
def test_nothing_is_undefined(threads: int) -> None:
    """Alignment, bounds of arrays, shifts: the sanitizer ends the process."""
    flags = ["-fsanitize=undefined", "-fno-sanitize-recover=undefined", "-O1", "-Wno-error"]
    kernels = EmulatedKernels(compile_set(SAMPLER, flags))
    device = Device(700, kernels=kernels, blocks=Blocks(min(threads, 8), threads))
    params = SamplingParams(
        seed=2**64 - 1,
        temperature=1.0,
        top_k=30,
        top_p=0.9,
        repetition_penalty=1.5,
        presence_penalty=1.0,
        logit_bias=((699, 1.0),),
    )
    rows = likely(np.random.default_rng(3), 700, 3)
    draw = device.draws.open(0, params, (1, 2), ())
    for row in rows:
        assert device.step(row[None], [Turn(0, draw)]) != [None]
    device.close()
