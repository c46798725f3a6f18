"""What a prediction depends on."""

from dataclasses import dataclass, replace

from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.gpu_profile import GpuProfile
from nemotrt.profiles.planning.memory.capacity import Budget, Fit
from nemotrt.profiles.planning.memory.request_memory import RequestMemory, request_memory
from nemotrt.profiles.planning.memory.weights import weights_bytes
from nemotrt.profiles.planning.sources.adapters import Adapters
from nemotrt.profiles.planning.sources.model_source import ModelSource
from nemotrt.profiles.planning.sources.number_format import check_precision
from nemotrt.profiles.planning.sources.windows import Windows
from nemotrt.profiles.planning.time.drafts import Drafts
from nemotrt.profiles.planning.time.engine_profile import (
    Admission,
    DraftStates,
    EngineProfile,
    WindowUse,
)
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.play.closed_loop import (
    SteadyState,
    Users,
    cycle,
    steady_state,
)
from nemotrt.profiles.planning.time.roofline import Scenario, roofline
from nemotrt.profiles.planning.time.step import ShardedModel, mean_context


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything that a prediction depends on."""

    model_name: str
    source: ModelSource
    gpu: GpuProfile
    engine: EngineProfile
    formats: Formats
    isl: int
    osl: int
    tp: int = 1
    memory_utilization: float = 0.95
    reserve_bytes: int = 0
    admission: Admission = Admission.RESERVE
    max_num_tokens: int = 2048
    # Lengths are drawn evenly from this share of `isl` and `osl` to all of them.
    shortest_share: float = 1.0
    drafts: Drafts | None = None
    # Standard deviations of both lengths as shares of them; they are then means.
    spreads: tuple[float, float] = (0.0, 0.0)
    splits_prompts: bool = True  # whether a call may take a part of a prompt
    kept_tokens: int = 0  # first tokens of a prompt whose state is there, of `kept_share` of them
    kept_share: float = 1.0
    adapters: Adapters | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError where the device cannot run this, or the heads do not split."""
        self._check_engine()
        check_precision(self.gpu, self.formats.precision)
        self._check_split()
        if self.drafts and self.drafts.states is DraftStates.UNKNOWN and self.model.mamba:
            raise ConfigError(
                f"--accepted-per-step: what guesses cost {self.engine.name} in Mamba layers is not "
                "known; leave it out."
            )

    def _check_engine(self) -> None:
        """Raise unless the engine runs on such a device, and on a CPU as it was measured."""
        engine, gpu = self.engine, self.gpu
        if engine.device != gpu.kind:
            raise ConfigError(f"engine {engine.name} does not run on {gpu.name}, a {gpu.kind}.")
        known = gpu.measured_with
        if known and (known.engine, known.precision) != (engine.name, self.formats.precision):
            raise ConfigError(
                f"{gpu.name} was measured with {known.engine} {known.precision}; "
                f"{engine.name} {self.formats.precision} needs a measurement of its own."
            )

    def _check_split(self) -> None:
        """Raise unless every kind of head splits evenly; more GPUs than KV heads share them."""
        model, tp, machine = self.model, self.tp, self.gpu.machine
        if machine is not None and tp > machine.num_gpus:
            raise ConfigError(f"--tp-size {tp}: {machine.name} has {machine.num_gpus} GPUs.")
        heads = {
            "attention heads": model.num_attention_heads,
            "KV heads": model.num_key_value_heads,
        }
        if model.mamba is not None:
            heads["Mamba heads"] = model.mamba.num_heads
        for what, count in heads.items():
            is_shared = what == "KV heads" and tp > count and tp % count == 0
            if count % tp and not is_shared:
                raise ConfigError(f"--tp-size {tp} does not divide {count} {what}.")

    @property
    def model(self) -> ModelConfig:
        """The model's sizes."""
        return self.source.model

    @property
    def fit(self) -> Fit:
        """The questions about memory, on one of the GPUs."""
        formats = self.formats
        beside = self.adapters.num_bytes(self.model) if self.adapters else 0
        weights = -(-(weights_bytes(self.model, formats) + beside) // self.tp)
        budget = Budget(self.gpu, self.memory_utilization, self.reserve_bytes, weights)
        activation = formats.activation
        lengths = self.max_num_tokens, self.isl + self.osl
        engine = self.engine
        chooses = engine.choosing is not None
        return Fit(
            *(self.model, budget, self.request, activation, *lengths),
            scratch=engine.scratch,
            states=engine.states,
            chooses=chooses,
        )

    @property
    def request(self) -> RequestMemory:
        """What one sequence holds on one of the GPUs."""
        formats = self.formats
        kv, ssm = formats.kv, formats.ssm
        return request_memory(self.model, self.engine, kv, ssm, self.tp, self.windows, self.drafts)

    @property
    def windows(self) -> Windows | None:
        """The model's sliding windows, where the engine lets go of what is outside of them."""
        return self.source.windows if self.engine.windows.use is WindowUse.FREED else None

    @property
    def planned_tokens(self) -> int:
        """Tokens that admission counts for a sequence."""
        if self.admission is Admission.MEAN:
            return round(mean_context(self.isl, self.osl))
        return self.isl + self.osl

    @property
    def num_engines(self) -> int:
        """Engines that the machine has GPUs for; one where no machine was named."""
        return self.gpu.machine.num_gpus // self.tp if self.gpu.machine else 1

    def max_batch_size(self) -> int:
        """Return how many sequences fit.

        Raises:
            NoFeasiblePlanError: not even one does.
        """
        self.fit.require(1, self.planned_tokens, self.model_name)
        return self.fit.max_batch_size(self.planned_tokens)

    def steady_state(
        self, concurrency: int, batch_size: int, scenario: Scenario, single: str = ""
    ) -> SteadyState:
        """Return what users get; `single` names the one correction that leaves its best."""
        users = self._users(concurrency, batch_size)
        return steady_state(self.sharded, roofline(self.gpu, self.engine, scenario, single), users)

    def tokens_per_s(
        self, concurrency: int, batch_size: int, scenario: Scenario, single: str = ""
    ) -> float:
        """Return the throughput of the same steady state, which takes no play."""
        users = self._users(concurrency, batch_size)
        on = roofline(self.gpu, self.engine, scenario, single)
        return cycle(self.sharded, on, users).tokens_per_s

    @property
    def sharded(self) -> ShardedModel:
        """The model in its formats on its GPUs."""
        cache_tokens = self.isl + self.osl if self.engine.reads_whole_cache else 0
        is_read = self.engine.windows.use is not WindowUse.UNKNOWN
        windows = self.source.windows if is_read else None
        beside = self.drafts, self.adapters
        return ShardedModel(self.model, self.formats, self.tp, cache_tokens, windows, *beside)

    def _users(self, concurrency: int, batch_size: int) -> Users:
        lengths, tokens = (self.isl, self.osl), self.max_num_tokens
        return Users(
            *(*lengths, concurrency, batch_size, tokens, self.shortest_share),
            spreads=self.spreads,
            splits_prompts=self.splits_prompts,
            kept_tokens=self.kept_tokens,
            kept_share=self.kept_share,
        )


def with_context(deployment: Deployment, isl: int, osl: int) -> Deployment:
    """Return the deployment at other lengths."""
    return replace(deployment, isl=isl, osl=osl)
