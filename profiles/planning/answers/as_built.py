"""A deployment as our backends' engines run it, and why none of them is what a plan is of."""

import math
from dataclasses import replace

from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.backend import AnyBackend
from nemotrt.engines.backends.protocol.planning import (
    ForeignRuntime,
    NotPlanned,
    OwnRuntime,
    Planning,
)
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.errors import ConfigError, NoFeasiblePlanError
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.options import formats_of
from nemotrt.profiles.planning.time.engine_profile import Admission, load_engine

# More slots than this are never planned, whatever fits: each is memory from the start.
# Source: the default max_num_seqs of vLLM's OpenAI server.
MAX_SLOTS = 256


def unbuilt(deployment: Deployment) -> str | None:
    """Return why no backend of ours builds the engine of a plan; None if one does."""
    name, tp = deployment.engine.name, deployment.tp
    if name not in registry.names():
        gpus = [backend.name for backend in registry.backends() if not backend.is_cpu]
        known = [name for name in gpus if _is_planned(name)]
        return f"no backend builds the engine {name}; choose --engine {' or '.join(known)}"
    backend = registry.find(name)
    if reason := unsupported(backend, deployment):
        return reason
    how = planning_of(backend, tp)
    if how.tp_size != tp and not isinstance(how, NotPlanned):
        return f"backend {name} has no tensor parallelism; leave out --tp-size"
    if isinstance(how, OwnRuntime):
        own, formats = _own(deployment, how), deployment.formats
        if deployment.admission is not Admission.RESERVE:
            return f"backend {name} keeps each request's full length; use --admission reserve"
        if (formats.kv, formats.ssm) != (own.formats.kv, own.formats.ssm):
            return (
                f"backend {name} has a {own.formats.kv} KV cache and {own.formats.ssm} SSM states, "
                f"not {formats.kv} and {formats.ssm}; leave out --kv-cache and --ssm-state"
            )
    return None


def built_note(deployment: Deployment, largest: int) -> str | None:
    """Return how what a build makes differs from the plan, where the plan is of our engines."""
    name, reason = deployment.engine.name, unbuilt(deployment)
    if name in registry.names() and reason:
        return f"`nemotrt build` makes no such engine: {reason}"
    is_design = name == "nemotrt" and deployment.tp == 1
    if not is_design or not deployment.model.num_mamba_layers:
        return None
    backend = registry.find(registry.first_for_gpu())
    try:
        _, num_built = as_built(deployment, planning_of(backend, 1))
    except NoFeasiblePlanError:
        num_built = 0
    if num_built == largest:
        return None
    return (
        f"`nemotrt build --backend {backend.name}` makes another engine: it holds {num_built} "
        f"(--engine {backend.name})"
    )


def as_built(deployment: Deployment, how: Planning) -> tuple[Deployment, int]:
    """Return the deployment as a backend's engine runs it, and how many sequences that holds.

    Raises:
        NoFeasiblePlanError: not even one fits.
        ConfigError: the planner knows nothing of that backend's engines.
    """
    match how:
        case OwnRuntime():
            found = _own(deployment, how)
            return found, min(found.max_batch_size(), MAX_SLOTS)
        case ForeignRuntime():
            found = _foreign(deployment, how)
            return found, foreign_batch_size(found, how)
    raise ConfigError("the planner knows nothing of its engines")


def foreign_batch_size(deployment: Deployment, runtime: ForeignRuntime) -> int:
    """Return how many sequences a runtime's share of the memory holds; at least one.

    Raises:
        NoFeasiblePlanError: not even one fits all of the memory.
    """
    fitting = deployment.max_batch_size()
    if not runtime.has_all_prompts_at_once:
        return max(math.floor(runtime.free_memory_share * fitting), 1)
    fit, prompt = deployment.fit, deployment.max_num_tokens
    for batch_size in range(fitting, 1, -1):
        together = replace(fit, max_num_tokens=batch_size * prompt)
        if together.holds(batch_size, deployment.planned_tokens):
            return batch_size
    return 1


def planning_of(backend: AnyBackend, tp: int) -> Planning:
    """Return how a backend's engine is planned: over `tp` GPUs, if it can be split."""
    kind = backend.options_type
    is_split = "tp_size" in kind.__dataclass_fields__
    return backend.planning(kind(tp_size=tp) if is_split else kind())


def _is_planned(name: str) -> bool:
    """Whether the planner has an engine of a backend's own name."""
    return getattr(planning_of(registry.find(name), 1), "engine", None) == name


def unsupported(backend: AnyBackend, deployment: Deployment) -> str | None:
    """Return why a backend has not the precision on the GPU, or has it not of such codes."""
    gpu, precision = deployment.gpu, deployment.formats.precision
    stored = deployment.source.quantization
    if stored is not None and not stored.is_own and precision is stored.precision:
        return (
            f"backend {backend.name} does not build {precision} of {stored.title}, whose codes it "
            "reads as floats; plan its engine by --precision bf16"
        )
    if gpu.kind == "gpu" and gpu.compute_capability is None:
        return f"the profile of {gpu.name} has no compute capability"
    reason = backend.supports(gpu.compute_capability, precision)
    return reason.rstrip(".") if reason else None


def _own(deployment: Deployment, runtime: OwnRuntime) -> Deployment:
    """Return the deployment as our own runtime runs it."""
    engine = load_engine(runtime.engine).model_copy(update={"states": runtime.layout})
    found = _with_engine(deployment, engine.name, NumberFormat.FP32)
    return replace(found, engine=engine)


def _foreign(deployment: Deployment, runtime: ForeignRuntime) -> Deployment:
    """Return the deployment as somebody else's runtime runs it."""
    ssm = NumberFormat.BF16 if runtime.has_16_bit_state else NumberFormat.FP32
    found = _with_engine(deployment, runtime.engine, ssm)
    return replace(found, max_num_tokens=found.isl) if runtime.takes_whole_prompts else found


def _with_engine(deployment: Deployment, name: str, ssm: NumberFormat) -> Deployment:
    """Return the deployment with another engine, its formats and its calls."""
    engine, gpu = load_engine(name), deployment.gpu
    formats = formats_of(deployment.source, engine, gpu, deployment.formats.precision, None, ssm)
    calls, admission = engine.max_num_tokens, engine.admission
    return replace(
        deployment, engine=engine, formats=formats, max_num_tokens=calls, admission=admission
    )
