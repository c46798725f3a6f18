"""How many sequences each small model may hold: the A10G's memory, scaled by a request."""

from dataclasses import dataclass

from nemotrt.engines.backends import registry
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.profiles.miniature.pair import Pair
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.memory.request_memory import request_memory
from nemotrt.profiles.planning.time.engine_profile import load_engine

REAL_HYBRID = "nemotron-nano-9b-v2"


@dataclass(frozen=True, slots=True)
class MiniatureBudget:
    """Bytes for caches and states, and the sequences that they hold."""

    cache_bytes: int
    hybrid_request_bytes: int
    baseline_request_bytes: int

    @property
    def hybrid_batch_size(self) -> int:
        """Sequences of the hybrid."""
        return self.cache_bytes // self.hybrid_request_bytes

    @property
    def baseline_batch_size(self) -> int:
        """Sequences of the baseline."""
        return self.cache_bytes // self.baseline_request_bytes


def make_budget(pair: Pair, num_tokens: int) -> MiniatureBudget:
    """Return the budget: as many requests of the hybrid as the A10G has room for, in bytes.

    The A10G's room is the planner's, for the published run: 8k/16k, 16-bit weights, cache and
    state. The baseline gets the same bytes.
    """
    real = real_deployment()
    batch_size = real.max_batch_size()
    room = real.fit.left_bytes(batch_size) / real.request.total_bytes(real.planned_tokens)
    requests = [
        request_memory(
            model, load_engine(registry.names()[0]), NumberFormat.FP32, NumberFormat.FP32
        )
        for model in (pair.hybrid, pair.baseline)
    ]
    hybrid_bytes, baseline_bytes = (request.total_bytes(num_tokens) for request in requests)
    return MiniatureBudget(int(room * hybrid_bytes), hybrid_bytes, baseline_bytes)


def real_deployment() -> Deployment:
    """Return the published run of the hybrid on the A10G: states in place, in 16 bits."""
    return deploy(
        DeploymentOptions(
            REAL_HYBRID,
            "a10g",
            precision=Precision.BF16,
            engine="nemotrt",
            ssm_dtype=NumberFormat.BF16,
        )
    )
