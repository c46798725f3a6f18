"""A server's own Prometheus metrics, read now and then while the load runs."""

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.profiles.targets.http_client import HttpClient
from nemotrt.profiles.targets.target import TargetError

INTERVAL_S = 0.5
# name{labels} value; the labels' values are summed over.
SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{.*\})?\s+(\S+)", re.M)
# Histograms of the same meaning by server: (name, factor to the metric's unit).
QUEUE_MS = (("nemotrt_queue_seconds", 1e3), ("vllm:request_queue_time_seconds", 1e3))
BATCH_SIZE = (("nemotrt_batch_size", 1.0), ("vllm:iteration_num_requests", 1.0))


@dataclass(frozen=True, slots=True)
class Scrape:
    """The values of one look, by name."""

    at_s: float
    values: Mapping[str, float]


@dataclass(slots=True)
class ServerMetrics:
    """Looks at `url` until told to stop; `failure` is why it stopped by itself."""

    url: str
    scrapes: list[Scrape] = field(default_factory=list)
    failure: str = ""
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def watch(self) -> None:
        """Look every INTERVAL_S and once at the end; a failure does not end the run."""
        parts = urlsplit(self.url)
        client = HttpClient(f"{parts.scheme}://{parts.netloc}")
        try:
            await self._look(client, parts.path or "/metrics")
            while not self.is_over.is_set() and not self.failure:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.is_over.wait(), INTERVAL_S)
                await self._look(client, parts.path or "/metrics")
        except (EnvironmentUnfitError, TargetError) as error:
            self.failure = error.message
        finally:
            client.close()

    async def _look(self, client: HttpClient, path: str) -> None:
        """Read the page once."""
        status, body = await client.get(path)
        if status != 200:
            self.failure = f"{self.url} answered {status}."
            return
        values = parse_metrics(body.decode(errors="replace"))
        self.scrapes.append(Scrape(time.perf_counter(), values))

    def mean(
        self, names: tuple[tuple[str, float], ...], start_s: float, end_s: float
    ) -> float | None:
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


def parse_metrics(text: str) -> dict[str, float]:
    """Return the values of a Prometheus text by name, summed over labels; buckets left out."""
    values: dict[str, float] = {}
    for name, number in SAMPLE.findall(text):
        if name.endswith("_bucket"):
            continue
        try:
            values[name] = values.get(name, 0.0) + float(number)
        except ValueError:
            continue  # not a sample
    return values
