"""What our source asks of cuda.bindings and pynvml is there, with as many arguments."""

import textwrap
from pathlib import Path

import pytest

from nemotrt import needs
from support.nvidia.cuda_api import NVML_VERSIONS, VERSIONS, cuda_apis, nvml_api
from support.nvidia.flat_uses import CUDA, NVML, faults, uses

ROOT = Path(__file__).parents[3]
FOLDERS = ("build", "engines", "files", "profiles", "quantize", "serve")
SOURCE = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
CUDA_USERS = [path for path in SOURCE if "tensorrt" in path.parts]
# Named so in our own source, too.
NVML_USERS = [path for path in SOURCE if "pynvml" in path.read_text() or "nvml" in path.parts]


def test_the_bounds_are_the_versions_that_are_read() -> None:
    for package, versions in ((needs.CUDA, VERSIONS), (needs.NVML, NVML_VERSIONS)):
        first, last = map(needs.numbers, (versions[0], versions[-1]))
        assert first[: len(needs.numbers(package.least))] == needs.numbers(package.least)
        assert not package.below or last < needs.numbers(package.below) <= (last[0] + 1,)


@pytest.mark.parametrize("version", VERSIONS)
def test_cuda_python_has_what_we_use(version: str) -> None:
    found = list(uses(CUDA_USERS, CUDA))
    assert faults(found, list(cuda_apis(version).values())) == []
    assert len({use.name for use in found}) > 40
    assert sum(use.num_arguments is not None for use in found) > 20


@pytest.mark.parametrize("version", NVML_VERSIONS)
def test_nvidia_ml_py_has_what_we_use(version: str) -> None:
    found = list(uses(NVML_USERS, NVML))
    assert faults(found, [nvml_api(version)]) == []
    assert len({use.name for use in found}) > 50


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("api.cudaFlee(1)", "no cudaFlee"),
        ("call('cudaFree')", "cudaFree takes [['devPtr']], not 0"),
        ("call('cudaFree', 1, 2)", "cudaFree takes [['devPtr']], not 2"),
        ("api.cudaMemcpyKind.cudaMemcpyHostToHome", "no cudaMemcpyHostToHome"),
        ("call('cudaFree', *rest)", ""),
        ("api.cudaFree(1)", ""),
    ],
)
def test_the_checker_finds(code: str, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text(textwrap.dedent(code))
    found = faults(list(uses([file], CUDA)), list(cuda_apis(VERSIONS[-1]).values()))
    assert [text.partition(": ")[2] for text in found] == ([fault] if fault else [])
