"""What a prediction depends on, and how it follows from the words of a user."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import click

from nemotrt.commandline.kinds import COUNT, FloatRange, choices
from nemotrt.commandline.options import option
from nemotrt.engines.backends import registry
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.gpu_profile import GpuProfile, load_gpu
from nemotrt.profiles.planning.memory.capacity import GIB, Budget, Fit
from nemotrt.profiles.planning.memory.request_memory import RequestMemory, request_memory
from nemotrt.profiles.planning.memory.weights import weights_bytes
from nemotrt.profiles.planning.sources.known_models import load_source
from nemotrt.profiles.planning.sources.model_source import ModelSource
from nemotrt.profiles.planning.sources.number_format import check_precision
from nemotrt.profiles.planning.sources.windows import Windows
from nemotrt.profiles.planning.time.closed_loop import (
    SteadyState,
    Users,
    cycle,
    steady_state,
)
from nemotrt.profiles.planning.time.engine_profile import (
    Admission,
    EngineProfile,
    known_engines,
    load_engine,
)
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.roofline import Scenario, roofline
from nemotrt.profiles.planning.time.step import ShardedModel, mean_context

THIS_MACHINE = "this-machine"
KV_TYPES = (NumberFormat.BF16, NumberFormat.FP8, NumberFormat.INT8, NumberFormat.FP32)
SSM_TYPES = (NumberFormat.FP32, NumberFormat.BF16, NumberFormat.FP16)


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

    def __post_init__(self) -> None:
        """Raise ConfigError where the device cannot run this, or the heads do not split."""
        self._check_engine()
        check_precision(self.gpu, self.formats.precision)
        self._check_split()

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
        weights = -(-weights_bytes(self.model, formats) // self.tp)
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
        return request_memory(self.model, self.engine, kv, ssm, self.tp, self.windows)

    @property
    def windows(self) -> Windows | None:
        """The model's sliding windows, where the engine lets go of what is outside of them."""
        return self.source.windows if self.engine.frees_windows else None

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
        return ShardedModel(self.model, self.formats, self.tp, cache_tokens, self.windows)

    def _users(self, concurrency: int, batch_size: int) -> Users:
        lengths, tokens = (self.isl, self.osl), self.max_num_tokens
        return Users(*lengths, concurrency, batch_size, tokens, self.shortest_share)


@dataclass(frozen=True, slots=True)
class DeploymentOptions:
    """What `nemotrt plan` takes; the defaults are the command's defaults.

    None stands for what was not given: precision, KV and SSM types are then the model's own, as
    its files say, and else the engine's.

    memory_utilization: the share of CUDA-visible memory that the engine may fill. Source: the
    5 % framework buffer of Nemotron Nano 2 (arXiv 2508.14444); the CUDA context lives in it.
    """

    model: str
    gpu: str = option(
        "a10g",
        "GPU or cloud instance by name, profile file, or this-machine.",
        "--gpu",
        metavar="NAME|FILE",
    )
    precision: Precision | None = None
    isl: int = option(8192, "Tokens of a prompt.", kind=COUNT)
    osl: int = option(16384, "Tokens of an answer.", kind=COUNT)
    engine: str | None = option(
        None,
        "Whose paging, defaults and overheads to assume.",
        kind=click.Choice(known_engines()),
        unset="the engine that `nemotrt build` makes for the GPU or CPU",
    )
    kv_dtype: NumberFormat | None = option(
        None,
        "Number format of the KV cache.",
        "--kv-cache",
        old=("--kv-dtype",),
        kind=choices(KV_TYPES),
        unset="the checkpoint's, else the engine's",
    )
    ssm_dtype: NumberFormat | None = option(
        None,
        "Number format of the SSM state.",
        "--ssm-state",
        old=("--ssm-dtype",),
        kind=choices(SSM_TYPES),
        unset="the checkpoint's, else fp32",
    )
    tp: int = option(1, "GPUs that share each layer.", "--tp-size", old=("--tp",), kind=COUNT)
    memory_utilization: float = option(
        0.95,
        "Share of the GPU's memory that the engine may fill.",
        kind=FloatRange(0, 1, min_open=True),
    )
    reserve_gib: float = option(
        0.0, "GiB kept for something else, such as a vision encoder.", kind=FloatRange(0)
    )
    admission: Admission | None = option(
        None,
        "Reserve each request's full length, or fill by mean occupancy.",
        kind=choices(tuple(Admission)),
        unset="as the engine does",
    )
    max_num_tokens: int | None = option(
        None, "New tokens in one call.", kind=COUNT, unset="the engine's"
    )

    def at(self, **changes: Any) -> "DeploymentOptions":
        """Return these options with some of them changed."""
        return replace(self, **changes)


def deploy(options: DeploymentOptions, gpu: GpuProfile | None = None) -> Deployment:
    """Return the deployment that the options mean, on `gpu` where it is known already.

    Raises:
        ConfigError: a name is unknown, or the GPU cannot run the precision.
    """
    source, precision = load_source(options.model), precision_of(options)
    gpu = gpu or resolve_gpu(options)
    engine = load_engine(options.engine or default_engine(gpu))
    if options.osl < 1 or options.isl < 1:
        raise ConfigError("--isl and --osl must be at least 1.")
    return Deployment(
        model_name=options.model,
        source=source,
        gpu=gpu,
        engine=engine,
        formats=formats_of(source, engine, gpu, precision, options.kv_dtype, options.ssm_dtype),
        isl=options.isl,
        osl=options.osl,
        tp=options.tp,
        memory_utilization=options.memory_utilization,
        reserve_bytes=int(options.reserve_gib * GIB),
        admission=options.admission or engine.admission,
        max_num_tokens=options.max_num_tokens or engine.max_num_tokens,
    )


def precision_of(options: DeploymentOptions) -> Precision:
    """Return the options' precision, else the checkpoint's own; bfloat16 for a float model."""
    if options.precision is not None:
        return options.precision
    quantization = load_source(options.model).quantization if options.model else None
    return quantization.precision if quantization else Precision.BF16


def formats_of(
    source: ModelSource,
    engine: EngineProfile,
    gpu: GpuProfile,
    precision: Precision,
    kv: NumberFormat | None = None,
    ssm: NumberFormat | None = None,
) -> Formats:
    """Return the formats of a plan; a KV or SSM type that is None is the model's or the engine's.

    An engine with one KV type keeps that. An FP8 cache that only the checkpoint asks for needs a
    GPU with FP8; else it has 16 bits.
    """
    if kv is None:
        stored = engine.kv_dtype or source.kv
        if stored is NumberFormat.FP8 and NumberFormat.FP8.value not in gpu.datasheet.tflops:
            stored = NumberFormat.BF16
        kv = stored or engine.kv_type(precision)
    formats = engine.formats(precision, kv, ssm or source.ssm or NumberFormat.FP32)
    if source.quantization is None:
        return formats
    # An engine that quantizes a 16 bit checkpoint's head takes a quantized one's as it is.
    formats = replace(formats, quantizes_head=False)
    is_own = precision is source.quantization.precision
    return replace(formats, stored=source.weights) if is_own else formats


def with_context(deployment: Deployment, isl: int, osl: int) -> Deployment:
    """Return the deployment at other lengths."""
    return replace(deployment, isl=isl, osl=osl)


def default_engine(gpu: GpuProfile) -> str:
    """Return what a build takes for a GPU; on a CPU, what its figures were measured with."""
    if gpu.kind == "gpu":
        return registry.first_for_gpu()
    return gpu.measured_with.engine if gpu.measured_with else registry.names()[0]


def resolve_gpu(options: DeploymentOptions) -> GpuProfile:
    """Return the options' GPU by name or file; `this-machine` is measured, once a process."""
    if options.gpu == THIS_MACHINE:
        return this_machine(options.engine, precision_of(options))
    return load_gpu(options.gpu)


@cache
def this_machine(engine: str | None, precision: Precision) -> GpuProfile:
    """Return this machine's profile for an engine and a precision, measured at the first call."""
    from nemotrt.profiles.planning.cpu.this_machine import measure_this_machine

    return measure_this_machine(engine, precision)
