"""Outside a backend's folder nobody names the backend or imports of the folder."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.backend import Executed

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("build", "charts", "engines", "files", "profiles", "quantize", "serve", "wire")
FOLDERS = {str(folder): name for name, folder in registry.BACKENDS.items()}
HOME = ROOT / "engines/backends"
# Who may import what of a backend's folder, and why.
MAY_IMPORT = {
    **{
        f"build/check/kernels/{name}.py": (imports, "runs our CUDA kernels on the GPU that is here")
        for name, imports in {
            "check": "tensorrt.device tensorrt.draws tensorrt.graph.fitness",
            "device": "tensorrt.device",
            "draws": "tensorrt.device tensorrt.draws",
            "mamba": "tensorrt.device",
            "mamba_layer": "tensorrt.device",
        }.items()
    },
    "demo.py": ("tensorrt.compile", "compiles plans by TensorRT for RTX, and asks for it first"),
    "engines/backends/tensorrt/draws/draws.py": (
        "native.library.draw",
        "the GPU's sampler says what went wrong in the words of the CPU's",
    ),
    "engines/runtime/sampling/draws.py": (
        "native.library.draw native.library.library",
        "tokens are chosen by the compiled step",
    ),
    "profiles/engine_step/measurement.py": (
        "native.engine native.library.cores native.library.machine_limits native.pages "
        "native.program.program",
        "times a native program's operations",
    ),
    "profiles/engine_step/operators.py": (
        "native.library.machine_limits native.program.program",
        "the same",
    ),
    "profiles/engine_step/roofline.py": ("native.library.machine_limits", "the same"),
    "profiles/engine_step/table.py": ("native.library.library", "names the kernels that ran"),
    "profiles/engine_step/work.py": ("native.program.program", "the same"),
    "quantize/calibration/drawn.py": (
        "native.engine native.export",
        "draws text on a checkpoint's engine in a folder of its own, without an artefact",
    ),
    "quantize/quality/running/block_engine.py": (
        "native.engine native.program",
        "runs one block at a time as a native program",
    ),
    "quantize/quality/running/opened.py": ("native.backend.check_step", "the same"),
    "quantize/quality/tasks/opened_model.py": (
        "native.backend.check_step native.engine native.export",
        "makes a checkpoint's engine in a folder of its own, without an artefact",
    ),
    "profiles/planning/memory/capacity.py": ("tensorrt.draws.tables", "counts what sampling takes"),
}
# Who may have a string that is a backend's name, and why.
MAY_NAME = {
    "build/check/result/report.py": "packages of the same names",
    "needs.py": "packages and extras of the same names",
    "profiles/planning/measured/rows.py": "the planner's name of an engine that others measured",
}


def modules() -> list[Path]:
    return [
        *(path for path in ROOT.glob("*.py")),
        *(path for room in ROOMS for path in (ROOT / room).rglob("*.py")),
    ]


def home_of(path: Path) -> str | None:
    """The backend whose folder a module lies in."""
    if not path.is_relative_to(HOME):
        return None
    return FOLDERS.get(path.relative_to(HOME).parts[0])


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module, or name of a module, that is imported of a backend's folder, without a head."""
    head = f"{registry.PACKAGE}."
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.removeprefix(head).split(".")
            if name.startswith(head) and parts[0] in FOLDERS:
                yield ".".join(parts)


def found_imports(path: Path) -> set[str]:
    """What a module imports of the folders of other backends."""
    own = home_of(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {name for name in imported(tree) if FOLDERS[name.split(".")[0]] != own}


def found_names(path: Path) -> set[str]:
    """The backends' names among a module's strings, the folder's own left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {name for name in registry.names() if name in strings}


def key(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_folders_are_the_registry() -> None:
    folders = {path.name for path in HOME.iterdir() if (path / "__init__.py").is_file()}
    assert folders - {"protocol"} == set(FOLDERS)


def test_nobody_outside_imports_of_a_folder() -> None:
    found = {key(path): names for path in modules() if (names := found_imports(path))}
    for path, names in found.items():
        allowed = MAY_IMPORT.get(path, ("", ""))[0].split()
        strange = {name for name in names if not any(name.startswith(of) for of in allowed)}
        assert not strange, f"{path} imports {strange}"
    assert set(found) == set(MAY_IMPORT), "an exception that is none any more"


@pytest.mark.parametrize(
    "name",
    [b.name for b in registry.backends() if b.executed is Executed.NEVER and b.name != "tensorrt"],
)
def test_what_no_gpu_ran_has_no_exception(name: str) -> None:
    folder = registry.BACKENDS[name]
    for allowed, _ in MAY_IMPORT.values():
        assert not any(of.split(".")[0] == folder for of in allowed.split())


def test_the_plugin_runtime_is_imported_by_tensorrt_alone() -> None:
    plugins = "tensorrt.plugins"
    assert not any(plugins in allowed for allowed, _ in MAY_IMPORT.values())


def test_nobody_outside_names_a_backend() -> None:
    outside = [path for path in modules() if home_of(path) is None]
    found = {key(path) for path in outside if found_names(path)}
    assert found - {"engines/backends/registry.py"} == set(MAY_NAME)
