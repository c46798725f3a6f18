"""The sampler's kernels are compiled once for a GPU and a compiler, and kept."""

import re
from pathlib import Path

import pytest

from nemotrt.engines.backends.tensorrt.device import kernel_image
from nemotrt.engines.backends.tensorrt.draws import library
from nemotrt.engines.backends.tensorrt.draws.tables import SAMPLER
from nemotrt.errors import ChildProcessFailedError, EnvironmentUnfitError
from support.nvrtc_stand_in import Nvrtc


@pytest.fixture
def nvrtc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nvrtc:
    """The only compiler; the cache is empty."""
    found = Nvrtc(0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for module in (kernel_image, library):
        monkeypatch.setattr(module, "find_nvcc", lambda: None)
        monkeypatch.setattr(module, "load_nvrtc", lambda: found)
    return found


def cached(folder: Path) -> Path:
    [file] = (folder / "nemotrt").iterdir()
    return file


def test_a_second_start_compiles_nothing(nvrtc: Nvrtc, tmp_path: Path) -> None:
    for _ in range(3):
        opened = library.open_sampler_library("9.0")
        assert opened._image == b"cubin" and opened._names == SAMPLER.names
        assert nvrtc.num_compiled == 1
    assert cached(tmp_path).name.startswith("sampler-")


def test_a_read_only_cache_is_read(nvrtc: Nvrtc, tmp_path: Path) -> None:
    library.open_sampler_library("9.0")
    (tmp_path / "nemotrt").chmod(0o500)
    library.open_sampler_library("9.0")
    (tmp_path / "nemotrt").chmod(0o700)
    assert nvrtc.num_compiled == 1


@pytest.mark.parametrize("damage", ["empty", "short", "long", "changed", "another key's"])
def test_a_damaged_file_is_compiled_anew(damage: str, nvrtc: Nvrtc, tmp_path: Path) -> None:
    library.open_sampler_library("9.0")
    file = cached(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(
        {
            "empty": b"",
            "short": whole[:-1],
            "long": whole + b"x",
            "changed": whole[:-1] + b"x",
            "another key's": library._seal("another", b"cubin") + b"cubin",
        }[damage]
    )
    assert library.open_sampler_library("9.0")._image == b"cubin"
    assert nvrtc.num_compiled == 2 and file.read_bytes() == whole


@pytest.mark.parametrize("changed", ["capability", "version", "source"])
def test_another_gpu_compiler_or_source_has_its_own(
    changed: str, nvrtc: Nvrtc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [library.SAMPLER.digest(kernel_image.STANDARD, "9.0", library.compilers())]
    library.open_sampler_library("9.0")
    if changed == "version":
        monkeypatch.setattr(Nvrtc, "nvrtcVersion", lambda self: (0, 13, 6))
    if changed == "source":
        (tmp_path / "kernels").mkdir()
        for name, text in SAMPLER.sources().items():
            (tmp_path / "kernels" / name).write_text(text + ("// more" if name == "feed.h" else ""))
        other = type(SAMPLER)(tmp_path / "kernels", *list(vars(SAMPLER).values())[1:])
        monkeypatch.setattr(library, "SAMPLER", other)
    capability = "8.6" if changed == "capability" else "9.0"
    keys.append(library.SAMPLER.digest(kernel_image.STANDARD, capability, library.compilers()))
    if changed != "capability":  # the stand-in compiles for 9.0
        library.open_sampler_library(capability)
        assert nvrtc.num_compiled == 2
    assert keys[0] != keys[1]


def test_a_full_disk_costs_the_next_start_only(
    nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def fails(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fails)
    assert library.open_sampler_library("9.0")._image == b"cubin"
    assert "No space left" in caplog.text and not list((tmp_path / "nemotrt").iterdir())


def test_without_a_compiler_the_install_line_is_given(
    nvrtc: Nvrtc, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise EnvironmentUnfitError("none")

    monkeypatch.setattr(library, "load_nvrtc", absent)
    with pytest.raises(
        EnvironmentUnfitError, match="pip install 'cuda-python>=13,<14' 'nvidia-cuda-nvrtc>=13,<14'"
    ):
        library.open_sampler_library("9.0")


def test_a_refusing_compiler_is_named(nvrtc: Nvrtc, tmp_path: Path) -> None:
    nvrtc.status = 6
    with pytest.raises(ChildProcessFailedError, match=r"nvrtcCompileProgram .*line 7: a fault"):
        library.open_sampler_library("9.0")
    assert not list((tmp_path / "nemotrt").iterdir())


def test_the_sources_include_nothing_of_cuda_s() -> None:
    """So NVRTC compiles them without CUDA's headers."""
    texts = SAMPLER.sources()
    for name, text in texts.items():
        included = re.findall(r"#include\s+(\S+)", text)
        assert all(x.strip('"') in texts and x[0] == '"' for x in included), name
