"""The limits of an engine where the user gives none: what the planner says fits the GPU."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from nemotrt.build.backend_options import checked_options
from nemotrt.build.engine_builder import BuildSpec
from nemotrt.build.given_limits import read_limits
from nemotrt.build.limit_options import GivenLimits
from nemotrt.build.plan_limits import OwnLimits
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.protocol.planning import ForeignRuntime, NotPlanned, OwnRuntime
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.errors import NoFeasiblePlanError
from nemotrt.profiles.planning.answers.as_built import foreign_batch_size
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.memory.capacity import GIB
from nemotrt.profiles.planning.sessions.kept import snapshot_interval
from nemotrt.profiles.planning.sessions.load import agents_load
from nemotrt.profiles.planning.time.engine_profile import load_engine

MIN_CHUNK_TOKENS = 128


def resolve_limits(
    checkpoint: Checkpoint,
    spec: BuildSpec,
    precision: Precision,
    given: GivenLimits,
    limits_file: Path | None = None,
    *,
    say: Callable[[str], None] = lambda note: None,
) -> BuildSpec:
    """Return `spec` with planned limits in the place of those that were not given.

    Those of `limits_file` count as given where no other is. A backend that the planner knows not
    keeps what `spec` has. `say` is told what was planned, and what was given and does not fit.

    Raises:
        NoFeasiblePlanError: not one sequence of that length fits the GPU, or not what a file has.
        ConfigError: the file was planned for something else.
    """
    backend = registry.find(spec.backend)
    options = checked_options(backend, spec.options)
    how = backend.planning(options)
    file = None
    if limits_file:
        file = read_limits(limits_file, spec.gpu, precision, backend.name, how.tp_size)
        given = given.or_else(file.given(has_chunk=isinstance(how, OwnRuntime)))
    if spec.gpu is None or isinstance(how, NotPlanned):
        return dataclasses.replace(spec, limits=given.over(spec.limits))
    if isinstance(how, OwnRuntime):
        share = file.memory_utilization if file else None
        own = OwnLimits(checkpoint, spec.gpu, precision, how, share)
        limits = own.planned(given)
        if lack := own.missing_bytes(limits):
            many = f"{limits.max_batch_size} sequences of {limits.max_seq_len} tokens"
            fault = f"{many} need {lack / GIB:.1f} GiB more than {spec.gpu} has"
            if file and limits == file.given(has_chunk=True).over(limits):
                raise NoFeasiblePlanError(
                    f"{fault}: {limits_file} was planned for {file.model}. Plan {checkpoint.path} "
                    "with --write-limits, or leave out --limits."
                )
            say(f"Warning: {fault}.")
    else:
        limits = planned_limits(checkpoint, how, spec.gpu, precision, given)
        block = load_engine(how.engine).tokens_per_block
        interval = snapshot_interval(agents_load().system_tokens, block)
        options, note = backend.planned(options, checkpoint.config, interval)
        spec = dataclasses.replace(spec, options=options)
        if note:
            say(note)
    if given.max_batch_size is None:
        many = f"{limits.max_batch_size} sequences of {limits.max_seq_len} tokens"
        if isinstance(how, ForeignRuntime) and how.takes_whole_prompts:
            many += f", prompts of {limits.chunk_tokens} at most,"
        say(f"Planned, not measured: {many} fit {spec.gpu}; --max-batch-size sets another number.")
    return dataclasses.replace(spec, limits=limits)


def two_sides_note(
    checkpoint: Checkpoint, spec: BuildSpec, precision: Precision, reason: str
) -> str:
    """Return what it means that a build has not proven that one spare state may rotate.

    Where the limits no longer fit the GPU, it says how many sequences do.
    """
    backend = registry.find(spec.backend)
    how = backend.planning(checked_options(backend, spec.options))
    said = f"Warning: states take two sides, since {reason}."
    if spec.gpu is None or not isinstance(how, OwnRuntime):
        return said
    limits, two_sides = spec.limits, OwnRuntime(how.engine, StateLayout.TWO_SIDES)
    own = OwnLimits(checkpoint, spec.gpu, precision, two_sides)
    lack = own.missing_bytes(limits)
    if not lack:
        return said
    try:
        given = GivenLimits(None, limits.max_seq_len, limits.chunk_tokens)
        cure = f"build again with --max-batch-size {own.planned(given).max_batch_size}"
    except NoFeasiblePlanError:
        cure = "build again with a smaller --max-seq-len"
    many = f"{limits.max_batch_size} sequences then need {lack / GIB:.1f} GiB more"
    return f"{said} {many} than {spec.gpu} has: {cure}."


def planned_limits(
    checkpoint: Checkpoint,
    runtime: ForeignRuntime,
    gpu: str,
    precision: Precision,
    given: GivenLimits,
) -> Limits:
    """Return how many sequences the planner sees fit, at what length, and the prompt chunk.

    Where prompts are taken whole the chunk is the longest prompt, which leaves a token to be
    generated. The lengths are the planner's own load (8k in, 16k out), at most what the model was
    trained for.

    Args:
        checkpoint: the model.
        runtime: that will run the engine.
        gpu: a known GPU.
        precision: of the linears.
        given: limits that are not to be planned.

    Raises:
        NoFeasiblePlanError: not one sequence of that length fits.
    """
    options = DeploymentOptions(
        model=str(checkpoint.path / "config.json"),
        gpu=gpu,
        precision=precision,
        engine=runtime.engine,
        kv_dtype=_kv_type(checkpoint, precision),
        ssm_dtype=NumberFormat.BF16 if runtime.has_16_bit_state else NumberFormat.FP32,
        tp=runtime.tp_size,
    )
    longest = checkpoint.config.max_position_embeddings
    seq_len = given.max_seq_len or min(options.isl + options.osl, longest)
    if runtime.takes_whole_prompts:
        prompt = given.chunk_tokens or min(options.isl, max(seq_len - 1, 1))
        options = options.at(max_num_tokens=prompt)
    osl = max(seq_len * 2 // 3, 1)
    deployment = deploy(options.at(isl=max(seq_len - osl, 1), osl=osl))
    batch_size = given.max_batch_size or foreign_batch_size(deployment, runtime)
    if runtime.takes_whole_prompts:
        return Limits(batch_size, seq_len, deployment.max_num_tokens)
    chunk = max(deployment.max_num_tokens - batch_size, MIN_CHUNK_TOKENS)
    return given.over(Limits(batch_size, seq_len, min(chunk, seq_len)))


def _kv_type(checkpoint: Checkpoint, precision: Precision) -> NumberFormat:
    """Return how the KV cache will be stored: FP8 where the checkpoint and the GPU have it."""
    has_fp8 = precision.arithmetic is NumberFormat.FP8
    is_fp8 = checkpoint.quant.has_fp8_cache and has_fp8
    return NumberFormat.FP8 if is_fp8 else NumberFormat.BF16
