"""What an open native engine keeps in memory: mapped weights, planned state, little else."""

import json
import subprocess
import sys
from pathlib import Path

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.program.program import WEIGHTS_FILE, read_program
from nemotrt.engines.runtime.engine import Limits
from support import reference

LIMITS = Limits(max_batch_size=4, max_seq_len=64, chunk_tokens=16)
ELSE_BYTES = 300 << 20  # of the whole process: the interpreter, its libraries, working memory
STEP_BYTES = 16 << 20  # of what opening and running add, beside state
RUN = """
import json, sys
from pathlib import Path
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.backends.native.engine import NativeEngine

def status(field):  # not getrusage: its peak counts the process that we were forked from
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(field)))

before = status("RssAnon")
engine = NativeEngine(Path(sys.argv[1]), Limits(4, 64, 16), 2)
slots = [engine.allocate() for _ in range(4)]
for count in (16, 1, 1):
    engine.step([Feed(slot, list(range(count))) for slot in slots])
print(json.dumps({"added": status("RssAnon") - before, "peak": status("VmHWM")}))
"""


def test_weights_are_mapped_and_the_rest_is_planned(tmp_path: Path) -> None:
    """Weights cost no anonymous memory, which a copy would; the peak is what was planned."""
    model = reference.nemotron_h("M-M", hidden_size=512, intermediate_size=16384)
    reference.save(model, tmp_path / "c")
    build_engine(tmp_path / "c", tmp_path / "e", BuildSpec("native", limits=LIMITS))
    weights = (tmp_path / "e" / WEIGHTS_FILE).stat().st_size
    state = 4 * sum(item.num_bytes for item in read_program(tmp_path / "e").states)
    assert weights > 3 * STEP_BYTES, "a copy of the weights must show"
    command = [sys.executable, "-c", RUN, str(tmp_path / "e")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout)
    assert found["added"] < state + STEP_BYTES
    assert found["peak"] < weights + state + ELSE_BYTES
