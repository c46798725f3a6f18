"""Runs steps of a native engine and says where their time went."""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nemotrt.engines.artefact.manifest import Manifest
from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.backends.native.library.cores import memory_nodes
from nemotrt.engines.backends.native.library.machine_limits import MachineLimits, measure_limits
from nemotrt.engines.backends.native.pages import PageUse
from nemotrt.engines.backends.native.program.program import Program, read_program
from nemotrt.engines.runtime.engine import Feed
from nemotrt.errors import ConfigError
from nemotrt.profiles.engine_step.load import Load
from nemotrt.profiles.engine_step.operators import TimedOperator, timed_operators
from nemotrt.profiles.engine_step.work import work_of
from nemotrt.profiles.hardware.busy import BusyWatch, MachineUse

NUM_WARMUP_STEPS = 2
GOOD_SHARE = 0.8  # of the roofline


@dataclass(frozen=True, slots=True)
class StepProfile:
    """A step of one engine under one load: medians over `num_steps` steps."""

    schema_version: int
    load: Load
    num_steps: int
    limits: MachineLimits
    step_ms: float
    roofline_ms: float
    outside_ms: float  # of step_ms: Python, and the library's own bookkeeping
    tokens_per_s: float
    operators: tuple[TimedOperator, ...]
    machine_use: MachineUse
    weights: PageUse | None  # in memory after the steps; None where the system does not tell
    states: PageUse | None
    num_memory_nodes: int  # 0 where the system does not tell

    @property
    def reached(self) -> float:
        """How much of the roofline's speed the step reaches."""
        return self.roofline_ms / self.step_ms

    @property
    def held_by(self) -> TimedOperator | None:
        """The operator that loses most time; None where the step reaches enough of its roofline."""
        if self.reached >= GOOD_SHARE:
            return None
        return max(self.operators, key=lambda item: item.ms - item.roofline_ms)


def profile_step(
    folder: Path,
    manifest: Manifest,
    load: Load,
    num_steps: int = 20,
    options: OpenOptions = AS_BUILT,
) -> StepProfile:
    """Return where the time of a step goes.

    Raises:
        ConfigError: the engine is of another backend, or its limits don't allow the load.
    """
    check_load(manifest, load, num_steps)
    program = read_program(folder)
    engine = NativeEngine(
        folder,
        manifest.engine_limits,
        options.num_threads,
        weight_pages=options.weight_pages,
        pins_threads=options.pins_threads,
    )
    try:
        num_bytes = _bytes_of_a_step(program, load)
        limits = measure_limits(engine.num_threads, num_bytes)
        machine = BusyWatch(is_engine_here=True)
        wall_s, op_s = _run(engine, load, num_steps)
        use = machine.use()
        limits = limits.best_of(measure_limits(engine.num_threads, num_bytes))
        weights, states = engine.page_use()
        num_passes = -(-load.num_tokens // engine.pass_tokens)
    finally:
        engine.close()
    step_ms = 1e3 * statistics.median(wall_s)
    operators = tuple(timed_operators(program, load, num_passes, op_s, step_ms, limits))
    return StepProfile(
        schema_version=1,
        load=load,
        num_steps=num_steps,
        limits=limits,
        step_ms=step_ms,
        roofline_ms=sum(operator.roofline_ms for operator in operators),
        outside_ms=1e3 * statistics.median(wall_s - op_s.sum(axis=1)),
        tokens_per_s=1e3 * load.num_tokens / step_ms,
        operators=operators,
        machine_use=use,
        weights=weights,
        states=states,
        num_memory_nodes=len(memory_nodes()),
    )


def check_load(manifest: Manifest, load: Load, num_steps: int) -> None:
    """Raise ConfigError unless the engine can run the steps."""
    timed = [backend.name for backend in registry.backends() if backend.times_operations]
    if manifest.backend not in timed:
        names = " and ".join(timed)
        raise ConfigError(
            f"this is a {manifest.backend} engine; only {names} ones time their operations: "
            f"build it with --backend {names}."
        )
    limits = manifest.engine_limits
    if load.batch > limits.max_batch_size:
        raise ConfigError(f"the engine has {limits.max_batch_size} slots, not {load.batch}.")
    if load.tokens > limits.chunk_tokens:
        raise ConfigError(f"a step takes {limits.chunk_tokens} tokens per slot, not {load.tokens}.")
    needed = load.held + load.tokens * (num_steps + NUM_WARMUP_STEPS if load.tokens == 1 else 1)
    if needed > limits.max_seq_len:
        raise ConfigError(
            f"{load.held} held tokens and {num_steps} steps need a max_seq_len of {needed}; "
            f"the engine has {limits.max_seq_len}."
        )


def _bytes_of_a_step(program: Program, load: Load) -> int:
    """Return what a step moves; the bandwidth is measured over as much, in cache if that is."""
    works = [work_of(program, operation, load) for operation in program.operations]
    return int(sum(work.read_bytes + work.update_bytes / 2 for work in works))


def _run(
    engine: NativeEngine, load: Load, num_steps: int
) -> tuple[
    np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int, int], np.dtype[np.float64]]
]:
    """Return the wall seconds of each step, and [steps, operations] seconds in the library."""
    rng = np.random.default_rng(0)
    slots = _begin(engine, load, rng)
    wall, inside = [], []
    for index in range(NUM_WARMUP_STEPS + num_steps):
        if load.tokens > 1 and index:  # each prompt chunk starts from as many held tokens
            for slot in slots:
                engine.release(slot)
            slots = _begin(engine, load, rng)
        feeds = [Feed(slot, _ids(engine, rng, load.tokens)) for slot in slots]
        before, start = engine.seconds.copy(), time.perf_counter()
        engine.step(feeds)
        wall.append(time.perf_counter() - start)
        inside.append(engine.seconds - before)
    return np.array(wall[NUM_WARMUP_STEPS:]), np.array(inside[NUM_WARMUP_STEPS:])


def _begin(engine: NativeEngine, load: Load, rng: np.random.Generator) -> list[int]:
    """Return slots that hold `load.held` tokens each."""
    slots = [engine.allocate() for _ in range(load.batch)]
    for slot in slots:
        for done in range(0, load.held, engine.limits.chunk_tokens):
            count = min(engine.limits.chunk_tokens, load.held - done)
            engine.step([Feed(slot, _ids(engine, rng, count))])
    return slots


def _ids(engine: NativeEngine, rng: np.random.Generator, count: int) -> list[int]:
    """Return random tokens."""
    ids: list[int] = rng.integers(0, engine.vocab_size, count).tolist()
    return ids
