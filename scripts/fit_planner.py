"""Fits the planner's constants to the rows marked calibration, and scores them on sources left out.

usage: python scripts/fit_planner.py [--leave-out | --requests]

Without an option it prints the constants of one fit of everything. With `--leave-out` it writes
records/left_out.json: for each source the error on its rows of constants that never saw it, beside
that of constants that saw all. Two minutes of CPU. With `--requests` it prints the time of a
request outside of all calls for each engine, by which first tokens of calibration rows are played
nearest, all else as it ships. What ships in `engines/*.yaml` and
`gpus/*/*.yaml` came of a longer fit, before this script was; this one does not give it back digit
by digit.
"""

import argparse
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from nemotrt.errors import NoFeasiblePlanError
from nemotrt.profiles.hardware.gpu_profile import Correction, Corrections, load_gpu
from nemotrt.profiles.planning.measured.prediction import deployment_of, load_of
from nemotrt.profiles.planning.measured.rows import MeasuredRow, read_rows, why_unscorable
from nemotrt.profiles.planning.measured.validation import LEFT_OUT_FILE, LeftOut, outcome
from nemotrt.profiles.planning.time.corrections import default_corrections
from nemotrt.profiles.planning.time.engine_profile import EngineProfile, Overhead, load_engine
from nemotrt.profiles.planning.time.play.closed_loop import Users, cycle
from nemotrt.profiles.planning.time.roofline import Roofline, Scenario
from nemotrt.profiles.planning.time.step import ShardedModel

SHARES = ("gemm_bandwidth", "gemm_compute", "gemm_compute_8bit", "attention_bandwidth")
SHARES += ("ssm_bandwidth",)
# Where a fit starts, and what holds it: no engine's own, so that no source is in it already.
STARTS = {
    "step_overhead_ms": 1.0,
    "sequence_overhead_us": 8.0,
    "tp.step_ms": 0.2,
    "tp.sequence_us": 3.0,
    "tp.all_reduce_us": 15.0,
    "gemm_8bit_factor": 1.0,
}
MOVES = (1.25, 1.1)
# At 0.02, a constant that is a factor of e away costs as much as 14 % of error in every row.
PULL = 0.02
FEW = 5  # rows of a source

Key = tuple[str, str]  # a GPU or an engine, and one of its constants


@dataclass(frozen=True, slots=True)
class Case:
    """A row, ready to be predicted under any constants."""

    row: MeasuredRow
    sharded: ShardedModel
    users: Users

    def error(self, on: Roofline) -> float:
        """Return the logarithm of predicted over measured tokens/s."""
        return math.log(cycle(self.sharded, on, self.users).tokens_per_s / self.row.tokens_per_s)


def errors(every: Sequence[Case], values: dict[Key, float]) -> list[float]:
    """Return the errors of rows under some constants."""
    pairs = {(case.row.gpu, case.row.engine) for case in every}
    on = {pair: _roofline(*pair, values) for pair in pairs}
    return [case.error(on[case.row.gpu, case.row.engine]) for case in every]


def _roofline(gpu_name: str, engine_name: str, values: dict[Key, float]) -> Roofline:
    gpu = load_gpu(gpu_name)
    shares = {name: _share(values[gpu_name, name]) for name in SHARES}
    corrections = Corrections(**shares).over(gpu.corrections).over(default_corrections())
    return Roofline(gpu, _engine(load_engine(engine_name), values), corrections, Scenario.BEST)


def cases(rows: Sequence[MeasuredRow]) -> Iterator[Case]:
    """Yield what can be predicted."""
    for row in rows:
        if why_unscorable(row):
            continue
        deployment = deployment_of(row, load_gpu(row.gpu))
        try:
            users, batch = load_of(row, deployment)
        except NoFeasiblePlanError:
            continue
        lengths = deployment.isl, deployment.osl
        asked = Users(
            *(*lengths, users, batch, deployment.max_num_tokens),
            kept_tokens=deployment.kept_tokens,
            kept_share=deployment.kept_share,
        )
        yield Case(row, deployment.sharded, asked)


def _share(value: float) -> Correction:
    return Correction(low=value, best=value, high=value, source="fit")


def _time(value: float) -> Overhead:
    return Overhead(low=value, best=value, high=value, source="fit")


def _engine(engine: EngineProfile, values: dict[Key, float]) -> EngineProfile:
    """Return an engine with fitted constants."""
    told = {name: values[engine.name, name] for name in STARTS}
    split = engine.tensor_parallel.model_copy(
        update={
            name.removeprefix("tp."): _time(value)
            for name, value in told.items()
            if name.startswith("tp.")
        }
    )
    return engine.model_copy(
        update={
            "tensor_parallel": split,
            "gemm_8bit_factor": told["gemm_8bit_factor"],
            "step_overhead_ms": _time(told["step_overhead_ms"]),
            "sequence_overhead_us": _time(told["sequence_overhead_us"]),
        }
    )


def starts(every: Collection[Case]) -> dict[Key, float]:
    """Return the constants of all GPUs and engines before any row was seen."""
    defaults = default_corrections().present()
    gpus, engines = {c.row.gpu for c in every}, {c.row.engine for c in every}
    found = {(gpu, name): defaults[name].best for gpu in gpus for name in SHARES}
    return found | {(engine, name): value for engine in engines for name, value in STARTS.items()}


def fit(seen: Sequence[Case], first: dict[Key, float]) -> dict[Key, float]:
    """Return the constants that bring the predictions nearest to the rows seen.

    Coordinate descent by factors, on squared logarithms of predicted over measured, with a pull to
    where it started; a constant changes the rows of its GPU or its engine alone.
    """
    values = dict(first)
    by_owner = {key[0]: [c for c in seen if key[0] in (c.row.gpu, c.row.engine)] for key in first}

    def loss(key: Key) -> float:
        squares = sum(error**2 for error in errors(by_owner[key[0]], values))
        return squares + PULL * math.log(values[key] / first[key]) ** 2 * len(by_owner[key[0]])

    for factor in MOVES:
        for key in first:
            if by_owner[key[0]]:
                _move(values, key, factor, loss)
    return values


def _move(values: dict[Key, float], key: Key, factor: float, loss: Callable[[Key], float]) -> None:
    """Move one constant by a factor, up or down, if that helps."""
    old, best = values[key], loss(key)
    for new in (old * factor, old / factor):
        values[key] = min(new, 0.95) if key[1] in SHARES else new
        if loss(key) < best * (1 - 1e-4):
            return
    values[key] = old


def mean_error(rows: Sequence[Case], values: dict[Key, float]) -> tuple[float, float]:
    """Return the mean absolute error and the bias over rows."""
    found = [math.expm1(error) for error in errors(rows, values)]
    return round(sum(map(abs, found)) / len(found), 3), round(sum(found) / len(found), 3)


def leave_out(every: Sequence[Case]) -> Iterator[LeftOut]:
    """Yield for each source its rows' error with constants that never saw it, and that saw all.

    Sources of few rows are left out together, which is stricter and takes one fit.
    """
    calibration = [case for case in every if case.row.role == "calibration"]
    counts = Counter(case.row.source for case in calibration)
    few = frozenset(source for source, count in counts.items() if count <= FEW)
    groups = [frozenset(), few, *(frozenset((source,)) for source in counts if source not in few)]
    seen = [[case for case in calibration if case.row.source not in group] for group in groups]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        fits = dict(zip(groups, pool.map(partial(fit, first=starts(every)), seen), strict=True))
    for source in sorted({case.row.source for case in every}):
        mine = [case for case in every if case.row.source == source]
        group = next((group for group in groups if source in group), groups[0])
        both = *mean_error(mine, fits[group]), *mean_error(mine, fits[groups[0]])
        yield LeftOut(source, len(mine), *both)


REQUESTS_MS = (4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 96)


def fit_requests(rows: Sequence[MeasuredRow]) -> Iterator[tuple[str, int, float, float, float]]:
    """Yield an engine, its calibration rows with a first token, and the time that fits them.

    With it come the mean absolute logarithm of predicted over measured, and its mean. Campaigns
    with a row beyond the datasheet are left out, as prompts were probably cached.
    """
    seen = [row for row in rows if row.role == "calibration" and not why_unscorable(row)]
    every = [outcome(row) for row in seen if row.ttft_ms]
    impossible = {one.campaign for one in every if one.is_beyond_floor}
    for name in sorted({one.row.engine for one in every}):
        mine = [o.row for o in every if o.row.engine == name and o.campaign not in impossible]
        trials = []
        for request_ms in REQUESTS_MS if mine else ():
            found = [_first_token_error(row, request_ms) for row in mine]
            absolute = sum(map(abs, found)) / len(found)
            trials.append((absolute, sum(found) / len(found), request_ms))
        if trials:
            absolute, mean, request_ms = min(trials)
            yield name, len(mine), request_ms, absolute, mean


def _first_token_error(row: MeasuredRow, request_ms: float) -> float:
    """Return the logarithm of the predicted over the measured time to the first token."""
    deployment = deployment_of(row, load_gpu(row.gpu))
    changed = {"request_overhead_ms": _time(request_ms)}
    deployment = replace(deployment, engine=deployment.engine.model_copy(update=changed))
    state = deployment.steady_state(*load_of(row, deployment), Scenario.BEST)
    waited_ms = row.harness.batch_wait_steps * state.tpot_ms
    assert row.ttft_ms is not None  # the caller looked
    return math.log((state.ttft_ms + waited_ms) / row.ttft_ms)


def main() -> None:
    """Fit, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leave-out", action="store_true", help="Score each source left out.")
    parser.add_argument("--requests", action="store_true", help="Fit a request's own time.")
    options = parser.parse_args()
    if options.requests:
        for name, num_rows, *values in fit_requests(read_rows()):
            print(f"{name}, {num_rows} rows: {values[0]} ms, {values[1]:.3f} ({values[2]:+.3f})")
        return
    every = list(cases(read_rows()))
    if options.leave_out:
        found = {one.pop("source"): one for one in map(asdict, leave_out(every))}
        Path(str(LEFT_OUT_FILE)).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        return
    calibration = [case for case in every if case.row.role == "calibration"]
    for (owner, name), value in sorted(fit(calibration, starts(every)).items()):
        print(f"{owner} {name} {value:.3g}")


if __name__ == "__main__":
    main()
