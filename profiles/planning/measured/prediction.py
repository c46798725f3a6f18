"""What the planner says of a measured row's load."""

from nemotrt.profiles.hardware.gpu_profile import GpuProfile
from nemotrt.profiles.planning.answers.deployment import formats_of
from nemotrt.profiles.planning.measured.rows import MeasuredRow
from nemotrt.profiles.planning.memory.capacity import Budget, Fit
from nemotrt.profiles.planning.memory.request_memory import request_memory
from nemotrt.profiles.planning.memory.weights import weights_bytes
from nemotrt.profiles.planning.sources.known_models import load_source
from nemotrt.profiles.planning.time.closed_loop import SteadyState, steady_state
from nemotrt.profiles.planning.time.engine_profile import load_engine
from nemotrt.profiles.planning.time.roofline import Scenario, roofline
from nemotrt.profiles.planning.time.step import ShardedModel, mean_context

# What the published tables let the engines fill. Source: TensorRT-LLM v0.17 perf-overview.md,
# kv_cache_free_gpu_mem_fraction 0.95 "in most cases".
MEMORY_UTILIZATION = 0.95


def predict(row: MeasuredRow, gpu: GpuProfile, scenario: Scenario = Scenario.BEST) -> SteadyState:
    """Return the predicted steady state of a row on `gpu`, without looking at what it measured.

    A stated concurrency is the batch: the row says that it ran. Under max load the batch is what
    fits by mean occupancy, as in-flight batching admits requests.
    """
    if row.precision is None or row.isl is None or row.osl is None:
        raise ValueError(f"{row.name} cannot be predicted")
    source, engine = load_source(row.model), load_engine(row.engine)
    model = source.model
    formats = formats_of(source, engine, gpu, row.precision, row.kv, row.ssm)
    batch_size = row.concurrency
    if batch_size is None:
        fit = Fit(
            model,
            Budget(gpu, MEMORY_UTILIZATION, 0, weights_bytes(model, formats)),
            request_memory(model, engine, formats.kv, formats.ssm),
            formats.activation,
            row.max_num_tokens,
            row.isl + row.osl,
            engine.scratch,
        )
        batch_size = fit.max_batch_size(round(mean_context(row.isl, row.osl)))
    sharded, on = ShardedModel(model, formats), roofline(gpu, engine, scenario)
    load = row.isl, row.osl, batch_size
    return steady_state(sharded, on, *load, batch_size, row.max_num_tokens)
