"""The engine's metrics once more by vLLM's names, which dashboards and autoscalers read.

Source: vLLM 0.32, vllm/v1/metrics/loggers.py. What is not measured here has no name here either.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

# vLLM's name of each of ours; the unit is the same, seconds.
NAMES = {
    "nemotrt_slots_in_use": "vllm:num_requests_running",
    "nemotrt_waiting_requests": "vllm:num_requests_waiting",
    "nemotrt_prompt_tokens": "vllm:prompt_tokens",
    "nemotrt_output_tokens": "vllm:generation_tokens",
    "nemotrt_requests": "vllm:request_success",
    "nemotrt_ttft_seconds": "vllm:time_to_first_token_seconds",
    "nemotrt_tpot_seconds": "vllm:request_time_per_output_token_seconds",
    "nemotrt_e2e_latency_seconds": "vllm:e2e_request_latency_seconds",
    "nemotrt_queue_seconds": "vllm:request_queue_time_seconds",
    "nemotrt_prefix_cache_prompt_tokens": "vllm:prefix_cache_queries",
    "nemotrt_prefix_cache_hit_tokens": "vllm:prefix_cache_hits",
    "nemotrt_preemptions": "vllm:num_preemptions",
    "nemotrt_speculation_drafts": "vllm:spec_decode_num_drafts",
    "nemotrt_speculation_drafted_tokens": "vllm:spec_decode_num_draft_tokens",
    "nemotrt_speculation_accepted_tokens": "vllm:spec_decode_num_accepted_tokens",
}
OUTCOMES = {"stop": "stop", "length": "length", "cancelled": "abort"}  # others are errors
USAGE = "vllm:kv_cache_usage_perc"  # from 0 to 1, whatever it is called


class VllmMetrics(Collector):
    """Metrics of an exposition, by vLLM's names."""

    def __init__(self, text: str, model_name: str) -> None:
        """Read the exposition."""
        self._families = {family.name: family for family in text_string_to_metric_families(text)}
        self._labels = {"model_name": model_name, "engine": "0"}

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics that are there."""
        for ours, name in NAMES.items():
            if ours in self._families:
                yield self._named(self._families[ours], name)
        usage = Metric(
            USAGE, "Share of the slots in use: a sequence's memory is its slot.", "gauge"
        )
        slots = self._families["nemotrt_slots"].samples[0].value
        used = self._families["nemotrt_slots_in_use"].samples[0].value
        usage.add_sample(USAGE, self._labels, used / slots)
        yield usage

    def _named(self, family: Metric, name: str) -> Metric:
        """Return a metric by its other name; outcomes with one word there are one."""
        named = Metric(name, family.documentation, family.type)
        values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        for sample in family.samples:
            labels = dict(sample.labels)
            if "outcome" in labels:
                labels = {"finished_reason": OUTCOMES.get(labels["outcome"], "error")}
            key = (name + sample.name.removeprefix(family.name), tuple(labels.items()))
            values[key] = values.get(key, 0.0) + sample.value
        for (sample_name, labels_of), value in values.items():
            named.add_sample(sample_name, {**self._labels, **dict(labels_of)}, value)
        return named


def vllm_text(text: str, model_name: str) -> str:
    """Return the metrics of an exposition by vLLM's names, as an exposition."""
    registry = CollectorRegistry()
    registry.register(VllmMetrics(text, model_name))
    return generate_latest(registry).decode()
