"""The figures of kept prefixes on /metrics, read by Prometheus' own parser."""

from dataclasses import fields

from prometheus_client.parser import text_string_to_metric_families

from nemotrt.engines.runtime.kept_state import KeptStats
from nemotrt.serve.engine.kept_metrics import COUNTERS, GAUGES, kept_text

STATS = KeptStats(
    limit_bytes=1000,
    bytes=900,
    states=3,
    prompt_tokens=50,
    hit_tokens=40,
    saves=7,
    evictions=4,
    preemptions=2,
    saved_s=1.5,
)
NAMES = {
    "nemotrt_prefix_cache_hit_tokens_total": 40,
    "nemotrt_prefix_cache_prompt_tokens_total": 50,
    "nemotrt_prefix_cache_bytes": 900,
    "nemotrt_prefix_cache_limit_bytes": 1000,
    "nemotrt_prefix_cache_states": 3,
    "nemotrt_prefix_cache_evictions_total": 4,
    "nemotrt_prefix_cache_saves_total": 7,
    "nemotrt_prefix_cache_saved_seconds_total": 1.5,
    "nemotrt_preemptions_total": 2,
}


def samples(text: str) -> dict[str, float]:
    families = text_string_to_metric_families(text)
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_each_figure_is_as_it_is_at_the_scrape() -> None:
    assert samples(kept_text(STATS)) == NAMES


def test_nothing_is_shown_where_nothing_is_kept() -> None:
    assert kept_text(None) == ""


def test_every_figure_is_told() -> None:
    assert {item.name for item in fields(KeptStats)} == COUNTERS.keys() | GAUGES.keys()
