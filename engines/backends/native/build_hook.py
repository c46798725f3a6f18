"""Hatch build hook: puts the compiled step into the wheel where there is a C++ compiler."""

import importlib.util
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeStepHook(BuildHookInterface[Any]):
    """Compiles for wheels only; without a compiler the wheel is pure and compiles at first use."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the step beside the build and tell the wheel where it goes."""
        if self.target_name != "wheel" or version == "editable":
            return
        compiler = _compiler()
        command = compiler.find_compiler()
        if command is None:
            self.app.display_warning(
                "no C++ compiler: the native step will be compiled at first use"
            )
            return
        self._folder = tempfile.mkdtemp()
        library = Path(self._folder) / compiler.LIBRARY_FILE
        try:
            compiler.compile_library(library, command)
        except (OSError, subprocess.CalledProcessError) as error:
            self.app.display_warning(f"the native step can't be compiled: {error}")
            return
        build_data["force_include"][str(library)] = f"engines/backends/native/{library.name}"
        build_data["pure_python"] = False
        system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{system}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was compiled."""
        if hasattr(self, "_folder"):
            shutil.rmtree(self._folder, ignore_errors=True)


def _compiler() -> ModuleType:
    """Return compiler.py, loaded by its path: the package is not installed yet."""
    path = Path(__file__).parent / "library" / "compiler.py"
    spec = importlib.util.spec_from_file_location("nemotrt_native_compiler", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
