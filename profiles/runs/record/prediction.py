"""The planner's prediction for a run, kept beside what was measured; it says that it is one."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from nemotrt.errors import NemotrtError
from nemotrt.files.model_file import Strict
from nemotrt.profiles.load.workload import Workload

if TYPE_CHECKING:
    from nemotrt.profiles.planning.answers.options import DeploymentOptions


class Prediction(Strict):
    """What the planner expected; nothing in it was measured.

    `decode_step_ms` has the parts of a step by operator, and their total.
    """

    gpu: str
    model: str
    precision: str
    batch_size: int
    tokens_per_s_low: float
    tokens_per_s: float
    tokens_per_s_high: float
    ttft_ms: float
    tpot_ms: float
    decode_step_ms: dict[str, float]
    bound_by: str
    limited_by: str
    notes: tuple[str, ...]


def predict(
    options: "DeploymentOptions", workload: Workload, max_batch_size: int | None = None
) -> Prediction:
    """Return the planner's prediction for a closed loop.

    Args:
        options: what to predict for, but for the lengths.
        workload: lengths and users.
        max_batch_size: the engine's limit, where it is known.

    Raises:
        NoFeasiblePlanError: the model or the batch does not fit.
        ConfigError: a name is unknown, or the GPU can't run the precision.
    """
    from nemotrt.profiles.planning.answers.options import deploy
    from nemotrt.profiles.planning.answers.plan import make_plan

    deployment = deploy(options.at(isl=workload.isl, osl=workload.osl))
    batch_size = None if max_batch_size is None else min(max_batch_size, workload.concurrency)
    plan = make_plan(deployment, workload.concurrency, batch_size)
    return Prediction(
        gpu=plan.gpu,
        model=Path(plan.model).name,
        precision=plan.precision,
        batch_size=plan.batch_size,
        tokens_per_s_low=plan.tokens_per_s.low,
        tokens_per_s=plan.tokens_per_s.best,
        tokens_per_s_high=plan.tokens_per_s.high,
        ttft_ms=plan.ttft_ms,
        tpot_ms=plan.tpot_ms,
        decode_step_ms=asdict(plan.decode_step_ms),
        bound_by=plan.bound_by,
        limited_by=plan.limited_by,
        notes=plan.notes,
    )


def try_predict(
    options: "DeploymentOptions", workload: Workload, max_batch_size: int | None = None
) -> tuple[Prediction | None, str]:
    """Return the prediction, or None and why there is none."""
    try:
        return predict(options, workload, max_batch_size), ""
    except NemotrtError as error:
        return None, f"No prediction: {error.message}"
