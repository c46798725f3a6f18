"""The figures of kept prefixes and guesses on /metrics, read by Prometheus' own parser."""

from dataclasses import fields

from prometheus_client.parser import text_string_to_metric_families

from nemotrt.engines.runtime.kept_state import KeptStats
from nemotrt.engines.runtime.request_scheduler import SpeculationStats
from nemotrt.serve.engine.kept_metrics import (
    COUNTERS,
    GAUGES,
    SPECULATION,
    kept_text,
    speculation_text,
)

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


def test_guesses_are_counted() -> None:
    assert samples(speculation_text(SpeculationStats(3, 20, 11))) == {
        "nemotrt_speculation_drafts_total": 3,
        "nemotrt_speculation_drafted_tokens_total": 20,
        "nemotrt_speculation_accepted_tokens_total": 11,
    }
    assert speculation_text(None) == ""
    assert {item.name for item in fields(SpeculationStats)} == SPECULATION.keys()
