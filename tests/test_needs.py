"""Every line that tells a user what to install is from one table, and what it says holds."""

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nemotrt import needs
from nemotrt.doctor import known_abilities, known_packages
from nemotrt.engines.backends.edge_llm import exporter
from nemotrt.engines.backends.tensorrt.compile.flavour import flavours
from nemotrt.engines.backends.tensorrt.device import kernel_image
from nemotrt.engines.backends.tensorrt.graph.fitness import unfit

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SHIPPED = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
    "only-include"
]
LINE = re.compile(r"pip install((?: '[^']+'| [\w.\-\[\]]+)+)")
# What nemotrt itself never brings: each has an environment of its own.
APART = {"aiperf", "tensorrt-edgellm", "tensorrt-llm"}


def test_the_extras_are_the_table() -> None:
    told = {
        extra: {package.requirement for package in packages}
        for extra, packages in needs.EXTRAS.items()
    }
    written = {
        extra: {str(Requirement(line)) for line in lines}
        for extra, lines in PROJECT["optional-dependencies"].items()
    }
    assert {extra: {str(Requirement(x)) for x in lines} for extra, lines in told.items()} == written


def test_the_base_is_the_table() -> None:
    base = {Requirement(line).name: Requirement(line) for line in PROJECT["dependencies"]}
    found = [package for package in known_packages() if not package.extra]
    assert {p.name for p in found} == {
        "onnx",
        "onnxruntime",
        "tokenizers",
        "nvidia-ml-py",
        "httptools",
        "prometheus_client",
    }
    for package in found:
        assert str(base[package.name]) == str(Requirement(package.requirement))


def strings(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_no_other_file_says_what_to_install() -> None:
    paths = [ROOT / name for name in SHIPPED]
    files = [path for path in paths if path.suffix == ".py"]
    files += [found for path in paths if path.is_dir() for found in path.rglob("*.py")]
    assert len(files) > 300
    for path in files:
        if path != ROOT / "needs.py":
            assert not [text for text in strings(path) if "pip install" in text], path


def hints() -> list[str]:
    """Return every line that the package can print."""
    lines = [package.cure for package in known_packages()]
    lines += [needs.install(extra) for extra in needs.EXTRAS if extra != "tensorrt-llm"]
    lines += [needs.pip_install(needs.CUDA.requirement), kernel_image.INSTALL, exporter.INSTALL]
    lines += [flavour.install("11.4.0.106") for flavour in flavours()]
    lines += [unfit(v, has_plugins=True) for v in ("10.14.1", "10.15.1", "12.0")]
    lines += [ability.missing()[0] for ability in known_abilities() if ability.missing()]
    return lines


@pytest.mark.parametrize("text", sorted(set(hints())))
def test_a_hint_is_a_line_that_a_shell_takes(text: str) -> None:
    found = LINE.search(text)
    assert found is not None, text
    for word in shlex.split(found[1]):
        requirement = Requirement(word)
        known = {package.name: package for package in known_packages()}
        if requirement.name == "nemotrt":
            assert requirement.extras <= set(needs.EXTRAS) - {"tensorrt-llm"}
        elif requirement.name in APART:
            assert "environment of its own" in text or "venv" in text
        else:
            assert requirement.name in known


def test_a_plan_s_hint_brings_all_that_runs_it() -> None:
    """The binding and its libraries in the plan's version, and CUDA: one line, not one of three."""
    rtx, ordinary = flavours()
    assert rtx.install("1.7.1.116") == (
        "pip install 'nemotrt[rtx-run]' tensorrt-rtx-cu13-bindings==1.7.1.116 "
        "tensorrt-rtx-cu13-libs==1.7.1.116"
    )
    assert ordinary.install("11.4.0.106") == (
        "pip install 'nemotrt[tensorrt]' tensorrt==11.4.0.106"
    )
    for flavour in (rtx, ordinary):
        brought = needs.EXTRAS[flavour.extra]
        assert {needs.CUDA, needs.NVRTC, *flavour.packages} <= set(brought)


def test_an_ability_s_extra_brings_its_packages() -> None:
    for ability in known_abilities():
        if ability.extra:
            base = {package for package in ability.packages if not package.extra}
            assert set(ability.packages) - base <= set(needs.EXTRAS[ability.extra]), ability.name


@pytest.mark.parametrize(
    ("version", "fits"),
    [("10.14.1.48.post1", False), ("10.15.1.29", True), ("11.4.0.106", True), ("12.0.0", False)],
)
def test_bounds_are_those_of_pip(version: str, fits: bool) -> None:
    specifier = Requirement(needs.TENSORRT.requirement).specifier
    assert specifier.contains(version, prereleases=True) == fits
    found = needs.numbers(version)
    least, below = needs.numbers(needs.TENSORRT.least), needs.numbers(needs.TENSORRT.below)
    assert (least <= found < below) == fits


# Into an empty environment; the index is asked.


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (found,) = folder.glob("*.whl")
    return found


def resolved(requirement: str, python: Path, folder: Path) -> dict[str, str]:
    """Return what pip would install, by name."""
    report = folder / "report.json"
    command = [str(python), "-m", "pip", "install", "--quiet", "--dry-run", "--report", str(report)]
    done = subprocess.run([*command, requirement], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]
    items = json.loads(report.read_text())["install"]
    return {
        item["metadata"]["name"].replace("_", "-").lower(): item["metadata"]["version"]
        for item in items
    }


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


@pytest.mark.slow
@pytest.mark.parametrize("extra", sorted(set(needs.EXTRAS) - {"tensorrt", "tensorrt-llm"}))
def test_an_extra_resolves_beside_the_base(
    extra: str, wheel: Path, empty: Path, tmp_path: Path
) -> None:
    found = resolved(f"{wheel}[{extra}]", empty, tmp_path)
    assert "onnxruntime" in found  # the base, too
    for package in needs.EXTRAS[extra]:
        name = package.name.replace("_", "-").lower()
        assert found[name] in Requirement(package.requirement).specifier


@pytest.mark.slow
def test_ordinary_tensorrt_s_bindings_resolve(empty: Path, tmp_path: Path) -> None:
    """Its libraries come from NVIDIA's own index, which `tensorrt` asks as it is installed."""
    bounds = Requirement(needs.TENSORRT.requirement).specifier
    found = resolved(f"tensorrt-cu13-bindings{bounds}", empty, tmp_path)
    assert found["tensorrt-cu13-bindings"] in bounds


@pytest.mark.slow
def test_what_runs_plans_holds_up_to_the_driver(wheel: Path, tmp_path: Path) -> None:
    """Install it into an empty environment: all but the GPU is there."""
    venv.create(tmp_path / "host", with_pip=True)
    python = tmp_path / "host" / "bin" / "python"
    subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", f"{wheel}[rtx-run]"],
        check=True,
        capture_output=True,
    )
    command = [str(python), "-m", "nemotrt", "doctor", "--json"]
    found = json.loads(subprocess.run(command, cwd=tmp_path, capture_output=True).stdout)
    hints = {ability["name"]: ability["hint"] for ability in found["abilities"]}
    assert hints["compile plans for A10G, A100 here (tensorrt)"] == ""
    for name in ("run plans here (tensorrt)", "choose tokens on the GPU (tensorrt)"):
        assert "pip install" not in hints[name] and "GPU" in hints[name]
    opened = [
        "import tensorrt_rtx_bindings as trt",
        "from nemotrt.engines.backends.tensorrt.device.cuda import cuda_api",
        "from nemotrt.engines.backends.tensorrt.device.kernel_image import load_nvrtc",
        "assert trt.Runtime and cuda_api().cudaMalloc and load_nvrtc().nvrtcVersion()[0] == 0",
    ]
    subprocess.run([str(python), "-c", "; ".join(opened)], cwd=tmp_path, check=True)
