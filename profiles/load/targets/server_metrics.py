"""A server's own Prometheus metrics, read now and then while the load runs."""

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from nemotrt.engines.artefact.manifest import LimitsEntry
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.load.http.http_client import HttpClient
from nemotrt.profiles.load.target import TargetError

INTERVAL_S = 0.5
SPLIT_BY = "request_type"  # the one label that is not summed over
# Of the same meaning by server: (name, factor to the metric's unit).
# Source: the servers' documentation: vLLM "Production Metrics", trtllm-serve "Prometheus Metrics",
# SGLang "Production Metrics", tensorrtllm_backend "Metrics".
Names = tuple[tuple[str, float], ...]
PARTS = ("sum", "count")
QUEUE_HISTOGRAMS_MS: Names = (
    ("nemotrt_queue_seconds", 1e3),
    ("vllm:request_queue_time_seconds", 1e3),
    ("trtllm_request_queue_time_seconds", 1e3),
)
BATCH_HISTOGRAMS: Names = (("nemotrt_batch_size", 1.0),)
BATCH_GAUGES: Names = (
    ("vllm:num_requests_running", 1.0),
    ("trtllm_num_requests_running", 1.0),
    ("sglang:num_running_reqs", 1.0),
    ("nv_trt_llm_request_metrics:scheduled", 1.0),
)
# What a line of interest starts with: a page of thousands is read while tokens are waiting.
WANTED = (
    *(f"{name}_{part}" for name, _ in QUEUE_HISTOGRAMS_MS + BATCH_HISTOGRAMS for part in PARTS),
    *(name.removesuffix(":scheduled") for name, _ in BATCH_GAUGES),
)
ENGINE_INFO = "nemotrt_engine_info"  # whose labels say which engine our server has
LIMITS = frozenset(LimitsEntry.model_fields)  # among these labels, as numbers
# Where OpenAI-compatible servers have their page: ours, vLLM and SGLang; trtllm-serve.
PATHS = ("/metrics", "/prometheus/metrics")


@dataclass(frozen=True, slots=True)
class Scrape:
    """The values of one look, by name."""

    at_s: float
    values: Mapping[str, float]


@dataclass(slots=True)
class ServerMetrics:
    """Looks at one of `urls` until told to stop; `failure` is why it stopped by itself.

    The first address that answers with metrics is taken. `engine` are the facts of the engine
    behind it, as far as the page tells them. Its model is the `architecture`: a target's `model` is
    the name that requests give.
    """

    urls: tuple[str, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    scrapes: list[Scrape] = field(default_factory=list)
    engine: dict[str, str | int] = field(default_factory=dict)
    failure: str = ""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self) -> None:
        """Look every INTERVAL_S and once at the end; a failure does not end the run."""
        for url in self.urls:
            self.failure = ""
            parts = urlsplit(url)
            client = HttpClient(f"{parts.scheme}://{parts.netloc}", headers=self.headers)
            try:
                await self._watch(client, parts.path or PATHS[0])
            except (EnvironmentUnfitError, TargetError) as error:
                self.failure = error.message
            finally:
                client.close()
            if self.scrapes:
                return

    async def _watch(self, client: HttpClient, path: str) -> None:
        """Look at one page until it fails or the run is over."""
        await self._look(client, path)
        while not self.is_over.is_set() and not self.failure:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.is_over.wait(), INTERVAL_S)
            await self._look(client, path)

    async def _look(self, client: HttpClient, path: str) -> None:
        """Read the page once."""
        status, body = await client.get(path)
        text = body.decode(errors="replace") if status == 200 else ""
        if not any(_samples(text)):
            self.failure = f"{client.url}{path} answered {status}" + (
                ", without metrics." if status == 200 else "."
            )
            return
        for sample in _samples(text, (ENGINE_INFO,)):
            facts = {k: _limit(v) if k in LIMITS else v for k, v in sample.labels.items()}
            self.engine = {"architecture": facts.pop("model", "not told")} | facts
        self.scrapes.append(Scrape(time.perf_counter(), parse_metrics(text, WANTED)))

    def histogram_mean(self, names: Names, start_s: float, end_s: float) -> float | None:
        """Return a histogram's mean over the looks nearest to [start_s, end_s], None without."""
        if not self.scrapes:
            return None
        first = min(self.scrapes, key=lambda scrape: abs(scrape.at_s - start_s)).values
        last = min(self.scrapes, key=lambda scrape: abs(scrape.at_s - end_s)).values
        for name, factor in names:
            count = last.get(f"{name}_count", 0.0) - first.get(f"{name}_count", 0.0)
            if count > 0:
                return factor * (last[f"{name}_sum"] - first.get(f"{name}_sum", 0.0)) / count
        return None

    def gauge_mean(self, names: Names, start_s: float, end_s: float) -> float | None:
        """Return a gauge's mean over the looks in [start_s, end_s], None without."""
        inside = [scrape.values for scrape in self.scrapes if start_s <= scrape.at_s <= end_s]
        for name, factor in names:
            levels = [values[name] for values in inside if name in values]
            if levels:
                return factor * sum(levels) / len(levels)
        return None

    def batch_size(self, start_s: float, end_s: float) -> float | None:
        """Return the mean number of sequences that ran at once."""
        found = self.histogram_mean(BATCH_HISTOGRAMS, start_s, end_s)
        return self.gauge_mean(BATCH_GAUGES, start_s, end_s) if found is None else found


def parse_metrics(text: str, starts: tuple[str, ...] = ("",)) -> dict[str, float]:
    """Return the values of a Prometheus text by name, summed over labels; buckets left out.

    Lines count that begin with one of `starts`.
    """
    values: dict[str, float] = {}
    for sample in _samples(text, starts):
        split = sample.labels.get(SPLIT_BY)
        name = f"{sample.name}:{split}" if split else sample.name
        # a summary without observations says NaN
        if not sample.name.endswith("_bucket") and math.isfinite(sample.value):
            values[name] = values.get(name, 0.0) + sample.value
    return values


def _limit(value: str) -> int | str:
    """Return a label as a number; what is none of up to nine digits stays as the server has it."""
    return int(value) if value.isdecimal() and len(value) < 10 else value


def _samples(text: str, starts: tuple[str, ...] = ("",)) -> Iterator[Sample]:
    """Yield the samples of a text, without the lines that are none."""
    for line in text.split("\n"):
        if line.startswith(starts):
            with contextlib.suppress(ValueError, IndexError):  # the parser's own
                for family in text_string_to_metric_families(line):
                    yield from family.samples
