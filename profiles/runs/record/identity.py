"""Who was measured: what makes two runs the same line of a chart, and names that tell lines apart.

A display name is no identity: two engines of one model have the same. What a target told of itself,
what it ran on, the load, and whether a prefix cache held its prompts are: but not how many users or
requests per second a sweep tried.
"""

import hashlib
from collections.abc import Sequence

from nemotrt.profiles.runs.record.prefix_cache import CacheUse, cache_use
from nemotrt.profiles.runs.record.result import ProfileResult

UNKNOWN_HARDWARE = "unknown"
# What a reader would say first of two runs that differ; other facts follow in their own order.
FIRST = ("model", "architecture", "precision", "backend", "hardware", "load")
BESIDE = ("address", "origin", "checked")  # what leaves an engine the same
LAST = ("checkpoint", "engine", "kind", "address")


def hardware(run: ProfileResult) -> str:
    """Return what the run ran on: as it was stated, else its GPUs, else the machine."""
    if "hardware" in run.target:
        return str(run.target["hardware"])
    names = sorted(str(gpu.facts.name) for gpu in run.gpus)
    if names:
        return " + ".join(names)
    machine = run.machine
    if machine["architecture"] == UNKNOWN_HARDWARE:
        return UNKNOWN_HARDWARE
    return f"CPU ({machine['architecture']}, {machine['num_cores']} cores)"


def identity(run: ProfileResult) -> dict[str, str]:
    """Return the facts that runs of one line share.

    An engine that tells its digest is the same wherever it lies; else its address counts.
    """
    facts = {name: str(value) for name, value in run.target.items() if value != ""}
    facts.setdefault("model", facts["address"])
    if "engine" in facts:
        facts = {name: value for name, value in facts.items() if name not in BESIDE}
    if (cache := cache_use(run.requests)) is not CacheUse.NOT_TOLD:
        facts["prefix cache"] = cache
    return facts | {"hardware": hardware(run), "load": load_text(run)}


def differences(runs: Sequence[ProfileResult]) -> dict[str, tuple[str, ...]]:
    """Return the facts in which the runs differ, each with one value per run ("not told")."""
    facts = [identity(run) for run in runs]
    middle = sorted(set().union(*facts) - {*FIRST, *LAST})
    rows = {
        name: tuple(told.get(name, "not told") for told in facts)
        for name in (*FIRST, *middle, *LAST)
    }
    return {name: values for name, values in rows.items() if len(set(values)) > 1}


def line_names(runs: Sequence[ProfileResult]) -> list[str]:
    """Return each run's line: its model, and as many facts as tell all the lines apart."""
    rows = differences(runs)
    names = [identity(run)["model"] for run in runs]
    keys: list[tuple[str, ...]] = [(name,) for name in names]
    for name, values in rows.items():
        longer = [(*key, value) for key, value in zip(keys, values, strict=True)]
        if len(set(longer)) > len(set(keys)):
            keys = longer
            names = [
                f"{said}, {_said(name, value)}" for said, value in zip(names, values, strict=True)
            ]
    return names


def _said(name: str, value: str) -> str:
    """Return a fact as a part of a name: a number or a digest needs to say what it is of."""
    return f"{name} {value}" if value.isalnum() and name not in FIRST else value


def load_text(run: ProfileResult) -> str:
    """Return the load but for what a sweep is over: its concurrency, or its rate."""
    load = run.workload
    text = f"{load.isl} in, {load.osl} out"
    if load.trace:
        entries = repr(load.trace).encode()
        text = f"trace {hashlib.sha256(entries).hexdigest()[:8]} of {len(load.trace)} requests"
    if load.sessions:
        text = load.sessions.text(load.isl, load.osl)
    parts = [text, "" if load.arrival == "closed" else f"{load.arrival} arrivals"]
    return ", ".join(filter(None, [*parts, f"prompts {load.language}"]))
