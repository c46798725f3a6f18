"""What pip installs on a GPU host, as a folder: the package, its requirements, and stand-ins.

The requirements are links to what this environment has, and no others are there: what an extra
forgets is missing, as it is after `pip install`.
"""

import re
import shutil
import sys
import tomllib
import venv
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from nemotrt.engines.backends.native.library.library import INSTALLED, library_path
from nemotrt.serve.triton.install import install_runtime
from nemotrt.serve.triton.runtime import SERVER_VERSION
from support import host_tensorrt

HERE = Path(__file__).parent
TESTS = HERE.parents[1]
ROOT = TESTS.parent
PREFIX = Path("/opt/nemotrt")  # where a namespace shows it
OWN = "rehearsal"  # of its folders, the one with what stands for something
RTX = "tensorrt_rtx_bindings"
# What no machine without a GPU has: its name, and the folder or file that stands for it.
STAND_INS = {
    "cuda-python": ("13.5.0", "cuda"),
    "nvidia-cuda-nvrtc": ("13.5.37", ""),  # one library, which cuda/bindings/nvrtc.py stands for
    "tensorrt": (host_tensorrt.VERSION, "tensorrt.py"),
}
SCRIPT = """#!{python}
import sys
from nemotrt.cli import main
sys.exit(main())
"""


def required(extras: Iterable[str], others: Iterable[str] = ()) -> set[str]:
    """Return every distribution that pip brings for extras of nemotrt, and others beside it."""
    wanted = [Requirement(f"nemotrt[{','.join(extras)}]"), *map(Requirement, others)]
    found: dict[str, set[str]] = {}
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if name in found and requirement.extras <= found[name]:
            continue
        found.setdefault(name, set()).update(requirement.extras)
        if name not in STAND_INS:
            wanted += _needs(name, requirement.extras)
    return set(found) - {"nemotrt"}


def _needs(name: str, extras: set[str]) -> Iterator[Requirement]:
    """Yield what a distribution asks for."""
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def make_image(folder: Path, packages: set[str]) -> Path:
    """Make a folder that is to be seen at PREFIX, with nemotrt and these distributions."""
    venv.create(folder, symlinks=True)
    for script in (folder / "bin").glob("[aA]ctivate*"):
        script.write_text(script.read_text().replace(str(folder), str(PREFIX)))
    program = folder / "bin/nemotrt"
    program.write_text(SCRIPT.format(python=PREFIX / "bin/python3"))
    program.chmod(0o755)
    site = next(folder.glob("lib/python3*/site-packages"))
    _copy_package(site)
    shutil.copytree(HERE.parent, folder / OWN / "support", ignore=_no_cache)
    (site / "rehearsal.pth").write_text(f"{PREFIX / OWN}\n")
    for name in packages:
        if name in STAND_INS:
            _stand_in(site, name)
        else:
            _link(site, name)
    if "tensorrt" in packages:
        _inner_compiler(folder / OWN / "compiler", site / "tensorrt.py")
    shutil.copy(folder / OWN / "support/rehearsal/programs/pip", folder / "bin/pip")
    runtime = folder / "share/nemotrt" / f"triton-{SERVER_VERSION}"
    runtime.parent.mkdir(parents=True)
    runtime.symlink_to(install_runtime().folder.resolve())
    _lay_out_triton(folder / OWN / "tritonserver")
    return folder


def shown() -> Iterator[Path]:
    """Yield the folders that links of an image lead to."""
    yield Path(sys.base_prefix)
    yield (
        Path(str(metadata.distribution("onnxruntime").locate_file("onnxruntime"))).resolve().parent
    )
    yield install_runtime().folder.resolve()


def _lay_out_triton(folder: Path) -> None:
    """Lay out Triton's runtime as NVIDIA's images have it."""
    runtime = install_runtime()
    links = {"bin/tritonserver": runtime.server, "caches": runtime.caches}
    links |= {f"backends/python/{x.name}": x for x in (runtime.backends / "python").iterdir()}
    for name, source in links.items():
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source.resolve())


_no_cache = shutil.ignore_patterns("__pycache__")


def _copy_package(site: Path) -> None:
    """Put nemotrt where a wheel puts it, its compiled step inside."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for name in project["tool"]["hatch"]["build"]["only-include"]:
        source, target = ROOT / name, site / "nemotrt" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=_no_cache)
        else:
            shutil.copyfile(source, target)
    inside = INSTALLED.resolve().relative_to(ROOT)
    shutil.copyfile(library_path(), site / "nemotrt" / inside)
    found = metadata.distribution("nemotrt")
    _write_metadata(site, "nemotrt", found.version, found.read_text("METADATA") or "")


def _link(site: Path, name: str) -> None:
    """Link all that a distribution put at the top of site-packages."""
    found = metadata.distribution(name)
    tops = {path.parts[0] for path in found.files or ()} - {"..", "__pycache__"}
    for top in tops:
        source = Path(str(found.locate_file(top)))
        if top == RTX:
            _stand_around(site, source)
        elif not (site / top).exists():
            (site / top).symlink_to(source)


def _stand_around(site: Path, real: Path) -> None:
    """Put our module before the real bindings: they compile, and what runs plans is ours."""
    folder = site / RTX
    folder.mkdir()
    shutil.copyfile(HERE / "packages" / RTX / "__init__.py", folder / "__init__.py")
    for path in real.iterdir():
        name = "real.py" if path.name == "__init__.py" else path.name
        if path.is_file():
            (folder / name).symlink_to(path)


def _stand_in(site: Path, name: str) -> None:
    """Put a stand-in in a distribution's place."""
    version, top = STAND_INS[name]
    _write_metadata(site, name, version, f"Metadata-Version: 2.1\nName: {name}\n")
    source = HERE / "packages" / top
    if top and source.is_dir():
        shutil.copytree(source, site / top, ignore=_no_cache)
    elif top:
        shutil.copyfile(source, site / top)


def _inner_compiler(folder: Path, module: Path) -> None:
    """Put what stands for ordinary TensorRT's compiler where no other module finds it."""
    with TemporaryDirectory() as place:
        written = host_tensorrt.write_package(Path(place)) / module.name
        folder.mkdir()
        shutil.copyfile(written, folder / "host_tensorrt_compiler.py")
    for name in (RTX, "tensorrt_rtx_libs"):
        (folder / name).symlink_to(str(metadata.distribution("onnxruntime").locate_file(name)))


def _write_metadata(site: Path, name: str, version: str, text: str) -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(exist_ok=True)
    lines = text if re.search(r"^Version:", text, re.MULTILINE) else f"{text}Version: {version}\n"
    (folder / "METADATA").write_text(lines)
