"""The engine on a step compiled with sanitizers: memory and undefined behaviour, and races."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.library.compiler import (
    compile_library,
    find_compiler,
)
from nemotrt.engines.backends.native.library.library import LIBRARY_VARIABLE
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from support import lora

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TESTS = (
    "test_draws.py",
    "test_native_drafts.py",
    "test_native_engine.py",
    "test_native_program.py",
    "test_native_quantized.py",
    "test_native_safety.py",
)
SANITIZER_FLAGS = (
    "-g",
    "-O1",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=undefined",
)
THREAD_SANITIZER_FLAGS = ("-g", "-O1", "-fsanitize=thread")
TARGETS = [*lora.HYBRID, "lm_head"]
LIMITS = Limits(max_batch_size=8, max_seq_len=1280, chunk_tokens=128)
STEPS = """
import sys
from pathlib import Path
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.runtime.sampling.draws import Turn, open_draws
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.checkpoint.lora.adapter import open_adapter
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.runtime.sampling.params import SamplingParams

folder = Path(sys.argv[1])
adapters = {"a": open_adapter(Path(sys.argv[2]), read_model_config(folder))}
engine = NativeEngine(folder, Limits(8, 1280, 128), 4, max_draft=16, adapters=adapters)
slots = [engine.allocate() for _ in range(8)]
for slot in slots[::2]:
    engine.adapt(slot, "a")
draws, card = open_draws(engine), SamplingParams(temperature=0.6, top_p=0.95, logprobs=3)
turns = [Turn(slot, draws.open(card, (7,), ())) for slot in slots]
for count in (1, 30, 1, 128, 1, 1):
    logits = engine.step([Feed(slot, [7 + slot] * count) for slot in slots])
    assert None not in draws.choose(logits, turns)
engine.release(slots[3])
engine.step([Feed(slot, [9]) for slot in slots[:3]])
for right in (1, 5, 9):
    engine.step([Feed(slot, [9] * 9, 9, is_draft=True) for slot in slots[:3]])
    engine.accept({slot: right for slot in slots[:3]})
for count in [128] * 8 + [1, 1]:  # at the end its keys are split among the threads
    engine.step([Feed(slots[0], [9] * count)])
engine.close()
print("done")
"""
RACE = """
#include <thread>
extern "C" int race() {
  int shared = 0;
  std::thread other([&] { for (int i = 0; i < 1000; i++) shared++; });
  for (int i = 0; i < 1000; i++) shared++;
  other.join();
  return shared;
}
"""


def runtime(command: list[str], name: str) -> str:
    """Return the path of a sanitizer's shared runtime; a compiler without one is skipped."""
    query = [*command, f"-print-file-name={name}"]
    path = subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip(f"{command[0]} has no shared {name}")
    return path


@pytest.mark.slow
def test_the_engine_is_clean_under_sanitizers(tmp_path: Path) -> None:
    """The engine's own tests again, on AddressSanitizer and UBSan."""
    command = find_compiler()
    assert command is not None
    compile_library(tmp_path / "step.so", command, SANITIZER_FLAGS)
    environment = os.environ | {
        LIBRARY_VARIABLE: str(tmp_path / "step.so"),
        "LD_PRELOAD": runtime(command, "libasan.so"),
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


@pytest.mark.slow
def test_threads_do_not_race(tmp_path: Path) -> None:
    """Prompts and decodes by four threads on ThreadSanitizer, which must find a real race."""
    command, setarch = find_compiler(), shutil.which("setarch")
    assert command is not None
    if setarch is None:
        pytest.skip("no setarch: ThreadSanitizer needs a fixed address layout")
    compile_library(tmp_path / "step.so", command, THREAD_SANITIZER_FLAGS)
    (tmp_path / "race.cpp").write_text(RACE)
    flags = [*THREAD_SANITIZER_FLAGS, "-shared", "-fPIC"]
    racy = tmp_path / "race.so"
    subprocess.run([*command, *flags, str(tmp_path / "race.cpp"), "-o", str(racy)], check=True)
    build_engine(TINY_MODELS["tiny"], tmp_path / "e", BuildSpec("native", limits=LIMITS))
    environment = os.environ | {
        LIBRARY_VARIABLE: str(tmp_path / "step.so"),
        "LD_PRELOAD": runtime(command, "libtsan.so"),
        "TSAN_OPTIONS": "exitcode=66",
    }

    def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        python = [setarch, platform.machine(), "-R", sys.executable, "-c", code, *arguments]
        return subprocess.run(python, env=environment, capture_output=True, text=True)

    control = run(f"import ctypes; ctypes.CDLL({str(racy)!r}).race()")
    assert control.returncode == 66 and "data race" in control.stderr, control.stderr[-2000:]
    adapter = lora.write_adapter(TINY_MODELS["tiny"], tmp_path / "a", target_modules=TARGETS)
    result = run(STEPS, str(tmp_path / "e"), str(adapter))
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.strip() == "done"
