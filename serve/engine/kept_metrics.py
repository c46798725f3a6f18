"""What kept prefixes did, in Prometheus form; nothing where none is kept."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from nemotrt.engines.runtime.kept_state import KeptStats

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


class KeptMetrics(Collector):
    """A scheduler's statistics, read at a scrape; the engine's loop counts on meanwhile."""

    def __init__(self, stats: KeptStats) -> None:
        """Take what is to be read."""
        self.stats = stats

    def collect(self) -> Iterator[Metric]:
        """Yield a family per figure."""
        for name, told in COUNTERS.items():
            yield CounterMetricFamily(*_named(told), value=getattr(self.stats, name))
        for name, told in GAUGES.items():
            yield GaugeMetricFamily(*_named(told), value=getattr(self.stats, name))


def kept_text(stats: KeptStats | None) -> str:
    """Return the figures as they are now; empty where there are none."""
    if stats is None:
        return ""
    registry = CollectorRegistry()
    registry.register(KeptMetrics(stats))
    return generate_latest(registry).decode()


def _named(told: tuple[str, str]) -> tuple[str, str]:
    return f"nemotrt_{told[0]}", told[1]
