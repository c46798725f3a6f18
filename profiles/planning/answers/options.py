"""The words of a user, and the deployment that follows from them."""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import click

from nemotrt.commandline.kinds import COUNT, FloatRange, choices
from nemotrt.commandline.options import option
from nemotrt.engines.backends import registry
from nemotrt.engines.checkpoint.lora.merging import USUAL_RANK
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.gpu_profile import GpuProfile, load_gpu
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.memory.capacity import GIB
from nemotrt.profiles.planning.sources.adapters import Adapters
from nemotrt.profiles.planning.sources.known_models import load_source
from nemotrt.profiles.planning.sources.model_source import ModelSource
from nemotrt.profiles.planning.time.drafts import Drafts
from nemotrt.profiles.planning.time.engine_profile import (
    Admission,
    EngineProfile,
    known_engines,
    load_engine,
)
from nemotrt.profiles.planning.time.formats import Formats

THIS_MACHINE = "this-machine"
KV_TYPES = (NumberFormat.BF16, NumberFormat.FP8, NumberFormat.INT8, NumberFormat.FP32)
SSM_TYPES = (NumberFormat.FP32, NumberFormat.BF16, NumberFormat.FP16)


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
    accepted_per_step: float | None = option(
        None,
        "Guesses that hold in a step of a sequence, on average (speculation).",
        kind=FloatRange(0),
        unset="no speculation",
    )
    guesses_per_step: int | None = option(
        None,
        "Guesses that a step checks, with --accepted-per-step.",
        kind=COUNT,
        unset="no more than hold",
    )
    adapters: int | None = option(
        None, "LoRA adapters that run beside the weights.", kind=COUNT, unset="none"
    )
    adapter_rank: int | None = option(
        None, "Rank of those adapters.", kind=COUNT, unset=str(USUAL_RANK)
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
        drafts=drafts_of(options, engine),
        adapters=adapters_of(options, engine),
    )


def adapters_of(options: DeploymentOptions, engine: EngineProfile) -> Adapters | None:
    """Return the adapters that the options mean; None without any.

    Raises:
        ConfigError: the engine runs none beside its weights.
    """
    if options.adapters is None:
        if options.adapter_rank is not None:
            raise ConfigError("--adapter-rank needs --adapters: how many of that rank.")
        return None
    if engine.adapters is None:
        raise ConfigError(
            f"--adapters: engine {engine.name} runs none beside its weights, as far as is known; "
            f"of --engine these do: {_engines_with('adapters')}. A merged one costs nothing."
        )
    rank = options.adapter_rank or USUAL_RANK
    return Adapters(options.adapters, rank, engine.adapters.number)


def drafts_of(options: DeploymentOptions, engine: EngineProfile) -> Drafts | None:
    """Return the guesses that the options mean; None without speculation.

    Raises:
        ConfigError: the engine checks none, or more hold than are made.
    """
    accepted, guesses = options.accepted_per_step, options.guesses_per_step
    if accepted is None:
        if guesses is not None:
            raise ConfigError("--guesses-per-step needs --accepted-per-step: how many hold.")
        return None
    if engine.speculation is None:
        raise ConfigError(
            f"--accepted-per-step: engine {engine.name} checks no guesses; of --engine these do: "
            f"{_engines_with('speculation')}."
        )
    guesses = guesses or max(math.ceil(accepted), 1)
    if accepted > guesses:
        raise ConfigError(
            f"--accepted-per-step {accepted:g}: no more hold than the {guesses} of "
            "--guesses-per-step."
        )
    return Drafts(guesses, accepted, engine.speculation.states)


def _engines_with(field: str) -> str:
    """Return the known engines whose profile has a field, for people."""
    return ", ".join(name for name in known_engines() if getattr(load_engine(name), field))


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
