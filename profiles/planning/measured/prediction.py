"""What the planner says of a measured row's load: the plan of a command line, without the words."""

from dataclasses import replace

from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.profiles.hardware.gpu_profile import GpuProfile
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.options import formats_of
from nemotrt.profiles.planning.measured.rows import MeasuredRow
from nemotrt.profiles.planning.sources.known_models import load_source
from nemotrt.profiles.planning.time.engine_profile import EngineProfile, Overhead, load_engine
from nemotrt.profiles.planning.time.roofline import Scenario


def deployment_of(row: MeasuredRow, gpu: GpuProfile) -> Deployment:
    """Return what a row ran, as `nemotrt plan` deploys it; what it does not state is default."""
    if row.precision is None or row.isl is None or row.osl is None:
        raise ValueError(f"{row.name} cannot be predicted")
    source, engine = load_source(row.model), _engine_of(row)
    kv = NumberFormat.BF16 if row.harness.has_16_bit_kv else row.kv
    deployment = Deployment(
        model_name=row.model,
        source=source,
        gpu=gpu,
        engine=engine,
        formats=formats_of(source, engine, gpu, row.precision, kv, row.ssm),
        isl=row.isl,
        osl=row.osl,
        tp=row.tp,
        admission=engine.admission,
        max_num_tokens=row.max_num_tokens or engine.max_num_tokens,
        shortest_share=row.harness.shortest_share,
        spreads=row.harness.spreads,
        splits_prompts=row.harness.splits_prompts,
    )
    if (mib := row.harness.reserve_mib) is not None:
        deployment = replace(deployment, memory_utilization=1.0, reserve_bytes=mib * 2**20)
    return _with_kept_prompts(row, deployment)


def _engine_of(row: MeasuredRow) -> EngineProfile:
    """Return the engine of a row as its campaign set it."""
    engine, harness = load_engine(row.engine), row.harness
    if harness.mixes_prompts is not None:
        engine = engine.model_copy(update={"mixes_prompts": harness.mixes_prompts})
    if harness.attention_8bit_factor != 1:
        factor = harness.attention_8bit_factor
        engine = engine.model_copy(update={"attention_8bit_factor": factor})
    if more_ms := harness.prompt_call_ms:
        source = "its campaign's, measured/campaigns/harness.py"
        prompt_ms = Overhead(low=more_ms / 2, best=more_ms, high=2 * more_ms, source=source)
        split = engine.tensor_parallel.model_copy(update={"prompt_ms": prompt_ms})
        engine = engine.model_copy(update={"tensor_parallel": split})
    return engine


def _with_kept_prompts(row: MeasuredRow, deployment: Deployment) -> Deployment:
    """Return a deployment that keeps the prompts which its load generator sends again.

    Where they do not all fit beside the answers, each is gone before it comes again.
    """
    num_prompts, users = row.harness.num_prompts, row.concurrency
    block = deployment.engine.tokens_per_block
    if not num_prompts or not users or deployment.isl <= block:
        return deployment
    request = deployment.request
    needed = num_prompts * request.total_bytes(deployment.isl)
    needed += users * request.total_bytes(deployment.osl)
    if needed > deployment.fit.left_bytes(users):
        return deployment
    kept, share = (deployment.isl - 1) // block * block, row.harness.kept_share(users)
    return replace(deployment, kept_tokens=kept, kept_share=share)


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
