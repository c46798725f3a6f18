"""What our GPU backends would build of a plan: the sequences that each engine holds, its ratio.

A plan may be of any engine. What `nemotrt build` makes is planned here as the backend itself says
that it runs, whatever formats the plan assumes.
"""

from collections.abc import Iterator

from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.backend import AnyBackend, Executed
from nemotrt.engines.backends.protocol.planning import ForeignRuntime, OwnRuntime, Planning
from nemotrt.errors import NemotrtError
from nemotrt.profiles.planning.answers.as_built import as_built, planning_of, unsupported
from nemotrt.profiles.planning.answers.comparison import throughput_ratio
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.plan import BuiltEngine


def built_engines(deployment: Deployment, baseline: Deployment) -> tuple[BuiltEngine, ...]:
    """Return what each GPU backend would build of both models; nothing for a CPU."""
    if deployment.gpu.kind != "gpu":
        return ()
    return tuple(
        _built(backend, deployment, baseline)
        for backend in registry.backends()
        if not backend.is_cpu
    )


def _built(backend: AnyBackend, deployment: Deployment, baseline: Deployment) -> BuiltEngine:
    """Return one backend's engine; its figures stay open where it does not build or hold one."""
    how = planning_of(backend, deployment.tp)
    reason = unsupported(backend, deployment) or unsupported(backend, baseline)
    if not reason and how.tp_size != deployment.tp:
        reason = "it has no tensor parallelism"
    if reason:
        return BuiltEngine(backend.name, None, None, None, (reason,))
    try:
        ours, batch = as_built(deployment, how)
        theirs, other = as_built(baseline, how)
        for one, size in ((ours, batch), (theirs, other)):
            one.fit.require(size, one.planned_tokens, one.model_name)
        ratio = throughput_ratio(ours, (batch, batch), theirs, (other, other))
    except NemotrtError as error:
        return BuiltEngine(backend.name, None, None, None, (error.message.rstrip("."),))
    return BuiltEngine(backend.name, batch, other, ratio, tuple(_notes(backend, how, ours)))


def _notes(backend: AnyBackend, how: Planning, deployment: Deployment) -> Iterator[str]:
    """Yield what must be known of an engine beside its figures."""
    tokens = deployment.max_num_tokens
    match how:
        case OwnRuntime():
            if deployment.model.num_mamba_layers:
                yield f"states: {how.layout}"
            yield f"prompts in chunks of {tokens}"
        case ForeignRuntime():
            if how.has_16_bit_state and deployment.model.num_mamba_layers:
                yield "16-bit SSM states"
            if how.takes_whole_prompts:
                yield f"prompts of {tokens} tokens in one call"
            if how.free_memory_share < 1:
                yield f"fills {how.free_memory_share:.0%} of what the weights leave"
    if backend.executed is Executed.NEVER:
        yield "not executed"
