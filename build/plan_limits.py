"""The limits of an engine of our own GPU runtime: as many sequences as the planner sees fit."""

import dataclasses

from nemotrt.build.limit_options import GivenLimits
from nemotrt.engines.backends.protocol.planning import OwnRuntime
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.errors import NoFeasiblePlanError
from nemotrt.profiles.planning.answers.as_built import MAX_SLOTS
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.memory.capacity import GIB
from nemotrt.profiles.planning.time.engine_profile import load_engine


@dataclasses.dataclass(frozen=True, slots=True)
class OwnLimits:
    """What an engine of our runtime is built from, and for which GPU.

    memory_utilization: share of the GPU's memory that it may fill; None for the planner's.
    """

    checkpoint: Checkpoint
    gpu: str
    precision: Precision
    runtime: OwnRuntime
    memory_utilization: float | None = None

    def planned(self, given: GivenLimits) -> Limits:
        """Return limits that fit: the planner's lengths, and as many sequences as fit.

        Raises:
            NoFeasiblePlanError: not one sequence fits.
        """
        planned = DeploymentOptions(str(self.checkpoint.path))
        longest = min(planned.isl + planned.osl, self.checkpoint.config.max_position_embeddings)
        chunk = load_engine(self.runtime.engine).max_num_tokens
        one = given.over(Limits(1, longest, min(chunk, longest)))
        if given.max_batch_size is not None:
            return one
        fit = self.deployment(one).fit
        fitting = min(fit.max_batch_size(one.max_seq_len), MAX_SLOTS)
        if not fitting:
            usable = fit.budget.usable_bytes
            raise NoFeasiblePlanError(
                f"one sequence of {one.max_seq_len} tokens needs "
                f"{(usable + self.missing_bytes(one)) / GIB:.1f} GiB on {fit.budget.gpu.name}, "
                f"which has {usable / GIB:.1f} GiB for an engine: choose a smaller --max-seq-len "
                "or --chunk-tokens, a quantized checkpoint, or a larger GPU."
            )
        return dataclasses.replace(one, max_batch_size=fitting)

    def missing_bytes(self, limits: Limits) -> int:
        """Return the bytes that an engine needs beyond what the GPU has for it; 0 if it fits."""
        fit = self.deployment(limits).fit
        return max(-fit.memory(limits.max_batch_size, limits.max_seq_len).free_bytes, 0)

    def deployment(self, limits: Limits) -> Deployment:
        """Return the planner's deployment of an engine of these limits."""
        osl = max(limits.max_seq_len * 2 // 3, 1)
        options = DeploymentOptions(
            str(self.checkpoint.path),
            self.gpu,
            self.precision,
            isl=max(limits.max_seq_len - osl, 1),
            osl=osl,
            engine=self.runtime.engine,
            ssm_dtype=NumberFormat.FP32,
            max_num_tokens=limits.chunk_tokens,
        )
        if self.memory_utilization is not None:
            options = options.at(memory_utilization=self.memory_utilization)
        found = deploy(options)
        engine = found.engine.model_copy(update={"states": self.runtime.layout})
        return dataclasses.replace(found, engine=engine)
