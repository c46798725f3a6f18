"""llama.cpp's source package, as the benchmarks bring it."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType


def llama_source() -> ModuleType:
    """Return the benchmarks' module that brings it."""
    path = Path(__file__).parents[2] / "benchmarks/cpu/llama_source.py"
    spec = spec_from_file_location("llama_source", path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def llama_templates() -> list[Path]:
    """Return the chat templates in it, dozens of models'."""
    folder: Path = llama_source().source_folder() / "models/templates"
    return sorted(folder.glob("*.jinja"))
