"""`check` alone: the tiny model, built for what is here and checked; and what was predicted."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from nemotrt.build.check.engine.check import check_engine
from nemotrt.build.check.result.engine_check import EngineCheck
from nemotrt.build.check.result.fault import CheckFaultError, Stage, stage
from nemotrt.build.check.result.report import Predicted
from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.local_gpu import local_gpu
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.profiles.hardware.gpu_profile import known_gpus, load_gpu
from nemotrt.profiles.load.workload import Workload
from nemotrt.profiles.planning.answers.options import THIS_MACHINE, DeploymentOptions
from nemotrt.profiles.runs.record.prediction import try_predict

TINY = "tiny"
LIMITS = Limits(max_batch_size=4, max_seq_len=256, chunk_tokens=32)
Report = Callable[[str], None]


def has_gpu() -> bool:
    """Whether there is a GPU, of a known capability or another: its kernels are to be checked."""
    return local_gpu() is not None


def gpu_here() -> str | None:
    """Return the known GPU that is here, else one of its compute capability; None without."""
    found = local_gpu()
    if found is None:
        return None
    known = [load_gpu(name) for name in known_gpus()]
    same = [gpu for gpu in known if gpu.compute_capability == found.compute_capability]
    # else one whose figures were fitted
    same.sort(key=lambda gpu: (found.product_name not in gpu.product_names, not gpu.is_fitted))
    return same[0].name if same else None


def check_machine(report: Report = lambda text: None) -> tuple[list[EngineCheck], list[Predicted]]:
    """Return what holds of the tiny model on what is here, and what the planner would have said."""
    gpu = gpu_here()
    backends = [registry.first_for_gpu()] if gpu else list(registry.cpu_names())
    checked, predicted = [], []
    for backend in backends:
        precision = Precision.BF16 if gpu else Precision.FP32
        found = _checked(backend, gpu, precision, report)
        checked.append(found)
        if found.comparison is not None:
            report(f"what the planner says of {backend}")
            predicted.append(_predicted(backend, gpu, precision, found))
    return checked, predicted


def _checked(backend: str, gpu: str | None, precision: Precision, report: Report) -> EngineCheck:
    """Return the check of an engine that is built for this, and goes after it."""
    report(f"building {TINY} with {backend}")
    with tempfile.TemporaryDirectory(prefix="nemotrt-check-") as folder:
        target = Path(folder) / "engine"
        try:
            with stage(Stage.BUILD):
                build_engine(TINY_MODELS[TINY], target, BuildSpec(backend, gpu, precision, LIMITS))
        except CheckFaultError as error:
            failed = EngineCheck(TINY, backend, gpu, precision.value)
            failed.faults.append(error.fault)
            return failed
        found = check_engine(target, report)
        found.engine = TINY
        return found


def _predicted(
    backend: str, gpu: str | None, precision: Precision, found: EngineCheck
) -> Predicted:
    """Return the planner's decode rate for the same model and as many sequences."""
    options = DeploymentOptions(
        model=str(TINY_MODELS[TINY]), gpu=gpu or THIS_MACHINE, precision=precision, engine=backend
    )
    many = found.decode_sequences
    load = Workload(isl=LIMITS.chunk_tokens, osl=16, concurrency=many, num_requests=many)
    prediction, note = try_predict(options, load, LIMITS.max_batch_size)
    rate = None if prediction is None else many / prediction.tpot_ms * 1e3
    return Predicted(backend, rate, note)
