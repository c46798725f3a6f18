"""What kept prefixes and guesses did, in Prometheus form; nothing where there are none."""

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nemotrt.engines.runtime.kept_state import KeptStats
from nemotrt.engines.runtime.request_scheduler import SpeculationStats

Told = Mapping[str, tuple[str, str]]
# By their names in the statistics, each with its name here and what it says.
COUNTERS = {
    "prompt_tokens": ("prefix_cache_prompt_tokens", "Prompt tokens that were looked up."),
    "hit_tokens": ("prefix_cache_hit_tokens", "Of these, those whose state was kept."),
    "saves": ("prefix_cache_saves", "States that were taken."),
    "evictions": ("prefix_cache_evictions", "States that were dropped to make room."),
    "saved_s": ("prefix_cache_saved_seconds", "What computing the hits would have taken, about."),
    "preemptions": ("preemptions", "Requests that gave their slot to a better priority."),
}
GAUGES = {
    "bytes": ("prefix_cache_bytes", "Memory of kept states."),
    "limit_bytes": ("prefix_cache_limit_bytes", "The most that they may have."),
    "states": ("prefix_cache_states", "States that are kept."),
}
SPECULATION = {
    "drafts": ("speculation_drafts", "Times that a sequence's step had guessed tokens."),
    "drafted_tokens": ("speculation_drafted_tokens", "Tokens that were guessed in them."),
    "accepted_tokens": ("speculation_accepted_tokens", "Of these, those that were chosen too."),
}


class StatsMetrics(Collector):
    """A scheduler's statistics, read at a scrape; the engine's loop counts on meanwhile."""

    def __init__(self, stats: Any, counters: Told, gauges: Told) -> None:
        """Take what is to be read."""
        self._stats, self._counters, self._gauges = stats, counters, gauges

    def collect(self) -> Iterator[Metric]:
        """Yield a family per figure."""
        for name, told in self._counters.items():
            yield CounterMetricFamily(*_named(told), value=getattr(self._stats, name))
        for name, told in self._gauges.items():
            yield GaugeMetricFamily(*_named(told), value=getattr(self._stats, name))


def kept_text(stats: KeptStats | None) -> str:
    """Return the figures of kept prefixes as they are now; empty where there are none."""
    return _text(stats, COUNTERS, GAUGES)


def speculation_text(stats: SpeculationStats | None) -> str:
    """Return the figures of guesses as they are now; empty where there are none."""
    return _text(stats, SPECULATION, {})


def _text(stats: Any, counters: Told, gauges: Told) -> str:
    if stats is None:
        return ""
    registry = CollectorRegistry()
    registry.register(StatsMetrics(stats, counters, gauges))
    return generate_latest(registry).decode()


def _named(told: tuple[str, str]) -> tuple[str, str]:
    return f"nemotrt_{told[0]}", told[1]
