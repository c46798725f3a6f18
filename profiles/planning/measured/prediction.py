"""What the planner says of a measured row's load: the plan of a command line, without the words."""

from nemotrt.profiles.hardware.gpu_profile import GpuProfile
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.options import formats_of
from nemotrt.profiles.planning.measured.rows import MeasuredRow
from nemotrt.profiles.planning.sources.known_models import load_source
from nemotrt.profiles.planning.time.engine_profile import load_engine
from nemotrt.profiles.planning.time.roofline import Scenario


def deployment_of(row: MeasuredRow, gpu: GpuProfile) -> Deployment:
    """Return what a row ran, as `nemotrt plan` deploys it; what it does not state is default."""
    if row.precision is None or row.isl is None or row.osl is None:
        raise ValueError(f"{row.name} cannot be predicted")
    source, engine = load_source(row.model), load_engine(row.engine)
    if row.harness.mixes_prompts is not None:
        engine = engine.model_copy(update={"mixes_prompts": row.harness.mixes_prompts})
    return Deployment(
        model_name=row.model,
        source=source,
        gpu=gpu,
        engine=engine,
        formats=formats_of(source, engine, gpu, row.precision, row.kv, row.ssm),
        isl=row.isl,
        osl=row.osl,
        tp=row.tp,
        admission=engine.admission,
        max_num_tokens=row.max_num_tokens or engine.max_num_tokens,
        shortest_share=row.harness.shortest_share,
    )


def load_of(row: MeasuredRow, deployment: Deployment) -> tuple[int, int]:
    """Return the users of a row, and how many of them run: as many as fit.

    Under max load as many users come as fit.

    Raises:
        NoFeasiblePlanError: not one sequence fits.
    """
    largest = deployment.max_batch_size()
    users = row.concurrency or largest
    return users, min(users, largest)


def predicted_tokens_per_s(row: MeasuredRow, gpu: GpuProfile) -> float:
    """Return the throughput planned for a row on `gpu`, without looking at what it measured.

    Raises:
        NoFeasiblePlanError: not one sequence fits.
    """
    deployment = deployment_of(row, gpu)
    return deployment.tokens_per_s(*load_of(row, deployment), Scenario.BEST)
