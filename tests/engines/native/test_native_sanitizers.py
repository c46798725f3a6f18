"""The engine's own tests again, on a step compiled with AddressSanitizer and UBSan."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nemotrt.engines.native.compiler import SANITIZER_FLAGS, compile_library, find_compiler
from nemotrt.engines.native.library import LIBRARY_VARIABLE

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TESTS = ("test_native_engine.py", "test_native_program.py")


def runtime(command: list[str]) -> str:
    """Return the path of the compiler's AddressSanitizer runtime."""
    query = [*command, "-print-file-name=libasan.so"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.slow
def test_the_engine_is_clean_under_sanitizers(tmp_path: Path) -> None:
    command = find_compiler()
    assert command is not None
    if not Path(runtime(command)).is_absolute():
        pytest.skip(f"{command[0]} has no shared AddressSanitizer runtime")
    compile_library(tmp_path / "step.so", command, SANITIZER_FLAGS)
    environment = os.environ | {
        LIBRARY_VARIABLE: str(tmp_path / "step.so"),
        "LD_PRELOAD": runtime(command),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    tests = [str(HERE / name) for name in TESTS]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert " passed" in result.stdout
