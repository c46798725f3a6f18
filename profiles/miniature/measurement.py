"""Builds the pair, measures both, predicts both for this machine, and judges the ratio."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.backends import registry
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.tiny.random_checkpoint import write_checkpoint
from nemotrt.errors import ChildProcessFailedError, NemotrtError
from nemotrt.profiles.hardware.busy import check_quiet, undisturbed
from nemotrt.profiles.hardware.on_busy import OnBusy
from nemotrt.profiles.load.targets.in_process import InProcessTarget
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.miniature.budget import MiniatureBudget, make_budget
from nemotrt.profiles.miniature.pair import make_pair
from nemotrt.profiles.planning.answers.options import THIS_MACHINE, DeploymentOptions
from nemotrt.profiles.planning.memory.weights import num_parameters
from nemotrt.profiles.runs import measure
from nemotrt.profiles.runs.measure import Observers, Progress
from nemotrt.profiles.runs.record.result import ProfileResult, Status
from nemotrt.profiles.runs.sweep import use_of
from nemotrt.profiles.verdict.judge import Verdict, judge

CHUNK_TOKENS = 128


@dataclass(frozen=True, slots=True)
class Miniature:
    """The measured pair."""

    isl: int
    osl: int
    num_parameters: tuple[int, int]  # hybrid, baseline
    budget: MiniatureBudget
    verdict: Verdict

    @property
    def results(self) -> list[ProfileResult]:
        """The two runs."""
        return [self.verdict.candidate, self.verdict.baseline]


def measure_miniature(
    folder: Path,
    *,
    isl: int,
    osl: int,
    requests_per_user: int,
    num_threads: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_busy: OnBusy = OnBusy.TELL,
    on_result: Callable[[str, ProfileResult], None] = lambda name, result: None,
) -> Miniature:
    """Return the miniature, with its checkpoints and engines in `folder`.

    `on_result` gets each side's run as soon as there is one, also one that was interrupted: what
    was measured must not be lost with what was not.

    Raises:
        ChildProcessFailedError: an engine could not be built.
        EnvironmentUnfitError: the machine is busy, and `on_busy` refuses that.
        NemotrtError: a run failed.
        KeyboardInterrupt: a run was interrupted.
    """
    pair = make_pair(isl + osl)
    budget = make_budget(pair, isl + osl)
    results = []
    for name, config, batch_size in (
        ("hybrid", pair.hybrid_json, budget.hybrid_batch_size),
        ("baseline", pair.baseline_json, budget.baseline_batch_size),
    ):
        checkpoint, engine = folder / f"{name}-checkpoint", folder / f"{name}-engine"
        write_checkpoint(checkpoint, config)
        _build(checkpoint, engine, batch_size, isl + osl)
        workload = Workload(
            isl, osl, requests_per_user * batch_size, concurrency=batch_size, num_warmup=batch_size
        )
        options = DeploymentOptions(str(checkpoint), THIS_MACHINE, Precision.FP32)
        observers = Observers(on_progress=on_progress, prediction=options)

        def attempt(
            engine: Path = engine, workload: Workload = workload, watch: Observers = observers
        ) -> ProfileResult:
            target = InProcessTarget(engine, options=OpenOptions(num_threads))
            return measure.run(target, workload, watch)

        result = undisturbed(on_busy, attempt, use_of)
        on_result(name, result)
        results.append(_completed(result, name))
        check_quiet(on_busy, use_of(result))
    hybrid, baseline = results
    return Miniature(
        isl=isl,
        osl=osl,
        num_parameters=(num_parameters(pair.hybrid), num_parameters(pair.baseline)),
        budget=budget,
        # both fill the memory they were given: that is the claim's own rule
        verdict=judge([hybrid], [baseline], 6.0, is_given_concurrency=True),
    )


def _completed(result: ProfileResult, name: str) -> ProfileResult:
    """Return a complete run; half a pair says nothing."""
    if result.status is Status.INTERRUPTED:
        raise KeyboardInterrupt
    if result.status is Status.FAILED:
        raise NemotrtError(f"the {name} run failed: {result.reason}")
    return result


def _build(checkpoint: Path, engine: Path, batch_size: int, max_seq_len: int) -> None:
    """Build an engine, as a user would."""
    command = [sys.executable, "-m", "nemotrt", "build", str(checkpoint), "-o", str(engine)]
    command += ["--max-batch-size", str(batch_size), "--max-seq-len", str(max_seq_len)]
    command += [
        "--backend",
        registry.names()[0],  # runs on any CPU
        "--chunk-tokens",
        str(min(CHUNK_TOKENS, max_seq_len)),
        "--quiet",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last_lines = "\n".join(done.stderr.splitlines()[-5:])
        raise ChildProcessFailedError(
            f"{' '.join(command)} failed with code {done.returncode}:\n{last_lines}"
        )
