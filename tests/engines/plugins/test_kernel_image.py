"""What compiles the Mamba kernels where, and what they are made for."""

import re
from pathlib import Path

import pytest

from nemotrt.engines.backends.tensorrt.device import kernel_image
from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims, sources
from nemotrt.errors import ChildProcessFailedError, ConfigError
from support.nvrtc_stand_in import Nvrtc

NINE_B = KernelDims(128, 80, 128, 8, 4)
EIGHT_B = KernelDims(128, 64, 128, 8, 4)


def test_the_key_changes_with_sources_and_dimensions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert NINE_B.key == KernelDims(128, 80, 128, 8, 4).key != EIGHT_B.key
    changed = {**sources(), "dims.h": "another text"}
    monkeypatch.setattr(
        "nemotrt.engines.backends.tensorrt.device.kernel_dims.sources", lambda: changed
    )
    assert KernelDims(128, 80, 128, 8, 4).key != NINE_B.key


def test_the_sources_include_nothing_of_cuda_s() -> None:
    """So NVRTC compiles them without CUDA's headers."""
    for name, text in sources().items():
        included = re.findall(r"#include\s+(\S+)", text)
        assert all(x.strip('"') in sources() and x[0] == '"' for x in included), name


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        (KernelDims(8, 1024, 128, 8, 4), "no room for head_dim 1024 with state_size 128"),
        (KernelDims(8, 64, 512, 8, 4), "no room for .* KiB of shared memory"),
        (KernelDims(8, 64, 128, 8, 1), "conv_kernel of 2 to 32"),
    ],
)
def test_dimensions_that_do_not_fit_are_refused(dims: KernelDims, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dims.check()


def test_nvcc_is_found_where_it_usually_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDACXX first, then the path, the toolkit's place, the package; else none."""
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(kernel_image, "TOOLKIT", tmp_path / "toolkit")
    monkeypatch.setattr(kernel_image.sysconfig, "get_path", lambda name: str(tmp_path))
    assert kernel_image.find_nvcc() is None
    package = tmp_path / "nvidia/cu13/bin/nvcc"
    places = [package, tmp_path / "toolkit", tmp_path / "nvcc", tmp_path / "given"]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("#!/bin/sh\n")
        place.chmod(0o755)
        if place.name == "given":
            monkeypatch.setenv("CUDACXX", str(place))
        assert kernel_image.find_nvcc() == place


@pytest.mark.parametrize("has_nvcc", [False, True])
def test_nvrtc_takes_nvcc_s_place(
    has_nvcc: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is none, and where it fails: too old for the GPU, or no host compiler."""
    nvrtc, nvcc = Nvrtc(0), tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho Unsupported gpu architecture >&2\nexit 1\n")
    nvcc.chmod(0o755)
    monkeypatch.setattr(kernel_image, "find_nvcc", lambda: nvcc if has_nvcc else None)
    monkeypatch.setattr(kernel_image, "load_nvrtc", lambda: nvrtc)
    assert kernel_image.compile_image(NINE_B, "9.0", tmp_path / "image") == "nvrtc"
    assert (tmp_path / "image").read_bytes() == b"cubin" and nvrtc.is_destroyed
    nvrtc.status = 6
    with pytest.raises(ChildProcessFailedError, match=r"nvrtcCompileProgram .*line 7: a fault"):
        kernel_image.compile_image(NINE_B, "9.0", tmp_path / "image")
