"""What must be equal before two runs may be compared."""

import math
from collections.abc import Sequence

from nemotrt.engines.model.numerics import Precision
from nemotrt.profiles.load.exchange import Ending
from nemotrt.profiles.load.workload import Arrival
from nemotrt.profiles.runs.record.endings import count_endings, error_rate
from nemotrt.profiles.runs.record.identity import UNKNOWN_HARDWARE, hardware, load_text
from nemotrt.profiles.runs.record.prefix_cache import CacheUse, cache_use, cached_share
from nemotrt.profiles.runs.record.result import ProfileResult, Status

NOTABLE_SHARE = 0.05  # of the prompts' tokens
# Stated facts: those that make another engine of it, and those that make it faster or slower.
MEMORY_FACTS = ("kv_cache", "ssm_state")
SETTING_FACTS = ("prefix_cache", "power_limit_w", "clock_mhz")
NOTABLE_ERRORS = 0.01  # of the requests: chosen, the least difference that a verdict is about
# What may make two GPUs of one name differ.
GPU_SETTINGS = ("driver", "power_limit_w", "max_sm_clock_mhz", "is_ecc_on", "is_mig")


def obstacles(candidate: ProfileResult, baseline: ProfileResult) -> list[str]:
    """Return why the two runs are not comparable, [] if they are."""
    found = []
    for name, run in (("candidate", candidate), ("baseline", baseline)):
        if run.status is not Status.COMPLETE:
            found.append(f"the {name} run is {run.status}: {run.reason}")
        elif count_endings(run.requests).get(Ending.OPEN):
            found.append(f"the {name} run has incomplete requests.")
        if run.driver.is_limit:
            found.append(f"the load driver was the limit of the {name} run.")
        if run.workload.arrival != Arrival.CLOSED:
            found.append(
                f"the {name} run was an open loop: its throughput is the rate that was asked for."
            )
    rates = [error_rate(count_endings(run.requests)) or 0.0 for run in (candidate, baseline)]
    if abs(rates[0] - rates[1]) > NOTABLE_ERRORS:
        found.append(
            f"the error rates differ: {rates[0]:.1%} against {rates[1]:.1%}; what a server refuses "
            "costs it nothing."
        )
    found += _other_load(candidate, baseline) + _other_start(candidate, baseline)
    ours, theirs = hardware(candidate), hardware(baseline)
    if UNKNOWN_HARDWARE in (ours, theirs):
        pass  # a caveat says so
    elif ours != theirs:
        found.append(f"the hardware differs: {ours} against {theirs}.")
    found += [f"the {text}." for text in _apart(candidate, baseline, MEMORY_FACTS)]
    kinds = [precision_class(run) for run in (candidate, baseline)]
    if None not in kinds and kinds[0] != kinds[1]:
        found.append(f"the precision class differs: {kinds[0]} against {kinds[1]}.")
    return found


def _apart(candidate: ProfileResult, baseline: ProfileResult, names: Sequence[str]) -> list[str]:
    """Return which of these facts both sides tell, each another."""
    pairs = ((name, *(run.target.get(name) for run in (candidate, baseline))) for name in names)
    return [
        f"{name} differs: {ours} against {theirs}"
        for name, ours, theirs in pairs
        if None not in (ours, theirs) and ours != theirs
    ]


def _other_load(candidate: ProfileResult, baseline: ProfileResult) -> list[str]:
    """Return in what the loads differ: lengths, or the conversations as a whole."""
    if candidate.workload.sessions or baseline.workload.sessions:
        ours, theirs = load_text(candidate), load_text(baseline)
        return [] if ours == theirs else [f"the load differs: {ours} against {theirs}."]
    found = []
    for name in ("isl", "osl"):
        mine, other = (getattr(run.workload, name) for run in (candidate, baseline))
        if mine != other:
            found.append(f"{name} differs: {mine} against {other}.")
    return found


def _other_start(candidate: ProfileResult, baseline: ProfileResult) -> list[str]:
    """Return why what the prefix caches held forbids a comparison.

    A cache that fills in the course of conversations is a server's own merit; prompts that it has
    from an earlier run, or that were to be new, are not.
    """
    uses = [cache_use(run.requests) for run in (candidate, baseline)]
    if CacheUse.NOT_TOLD in uses or uses[0] is uses[1]:
        return []
    if candidate.workload.sessions and CacheUse.STARTED_WARM not in uses:
        return []
    return [
        f"the prefix caches differ: {uses[0]} against {uses[1]}. Start both servers anew, and "
        "leave out --seed."
    ]


def _cache_caveats(candidate: ProfileResult, baseline: ProfileResult) -> list[str]:
    """Return in what the prefix caches differ, or that it is not known."""
    uses = [cache_use(run.requests) for run in (candidate, baseline)]
    shares = [cached_share(run.requests) for run in (candidate, baseline)]
    told = ["not told" if share is None else f"{share:.0%}" for share in shares]
    is_apart = None not in shares and abs((shares[0] or 0.0) - (shares[1] or 0.0)) > NOTABLE_SHARE
    is_unknown = None in shares and not {CacheUse.WARM, CacheUse.STARTED_WARM}.isdisjoint(uses)
    if not is_apart and not is_unknown:
        return []
    return [
        f"what the prefix caches held of the prompts differs: {told[0]} of the candidate's tokens, "
        f"{told[1]} of the baseline's."
    ]


def caveats(candidate: ProfileResult, baseline: ProfileResult) -> list[str]:
    """Return what a reader must weigh, though it does not forbid the comparison."""
    found = []
    for name, run in (("candidate", candidate), ("baseline", baseline)):
        found += [f"{name}: {note}" for note in run.notes]
        if precision_class(run) is None:
            found.append(f"{name}: the target does not say its precision.")
        if hardware(run) == UNKNOWN_HARDWARE:
            found.append(f"{name}: its hardware is not told.")
        elif "hardware" in run.target:
            found.append(f"{name}: its hardware is as the user states it.")
        elif not run.gpus and run.target["kind"] != "in-process":
            found.append(f"{name}: no GPU was watched; the hardware is taken to be this machine's.")
    kinds = {str(run.target["kind"]) for run in (candidate, baseline)}
    if len(kinds) > 1:
        found.append(f"the runs went over different protocols: {', '.join(sorted(kinds))}.")
    found += [f"the {text}." for text in _apart(candidate, baseline, SETTING_FACTS)]
    found += _cache_caveats(candidate, baseline)
    if candidate.workload.language != baseline.workload.language:
        found.append("the prompts are in different languages.")
    for ours, theirs in zip(candidate.gpus, baseline.gpus, strict=False):
        for fact in GPU_SETTINGS:
            values = [getattr(gpu.facts, fact) for gpu in (ours, theirs)]
            if values[0] != values[1]:
                found.append(f"the GPUs' {fact} differs: {values[0]} against {values[1]}.")
    return found


def precision_class(run: ProfileResult) -> str | None:
    """Return the class of the target's precision, None where it does not say.

    A fair comparison mixes no precisions; but some names mean the same bits.
    """
    told = str(run.target.get("precision", ""))
    if told not in list(Precision):
        return None
    weights = " weights" if Precision(told).is_weight_only else ""
    return f"{Precision(told).weights.format.num_bits}-bit{weights}"


def best_runs(runs: Sequence[ProfileResult]) -> tuple[list[ProfileResult], bool]:
    """Return the complete runs of the fastest concurrency, and whether it is shown to be that.

    It is shown if a larger concurrency was tried and brought no more than noise. Runs of the same
    load are repeats; the mean of their logarithms counts.
    """
    complete = [
        run
        for run in runs
        if run.status is Status.COMPLETE and run.metrics["tokens_per_s"].value is not None
    ]
    if not complete:
        return [runs[0]], False
    groups: dict[int, list[ProfileResult]] = {}
    for run in complete:
        groups.setdefault(run.workload.concurrency, []).append(run)
    best = max(groups, key=lambda users: mean_log_rate(groups[users]))
    return groups[best], any(users > best for users in groups)


def mean_log_rate(runs: Sequence[ProfileResult]) -> float:
    """Return the mean of the logarithms of the runs' tokens per second."""
    return sum(math.log(run.metric("tokens_per_s")) for run in runs) / len(runs)
