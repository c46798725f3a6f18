"""What GPUs a machine elsewhere has: asked of `nemotrt profile gpu --serve` beside its server."""

import urllib.request
from http.client import HTTPException
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.profiles.hardware.exporter.gpu_gauges import INFO

TIMEOUT_S = 10.0
MAX_BYTES = 1 << 20  # a GPU has some ten lines


def hardware_of(url: str) -> str:
    """Return the GPUs that an exporter watches, as a run that watches them itself names them.

    Raises:
        ConfigError: it is no http address.
        EnvironmentUnfitError: it does not answer, or tells no GPU.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConfigError(
            f"--hardware-from {url!r} must be an exporter's address, such as "
            "http://HOST:9400/metrics."
        )
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            text = answer.read(MAX_BYTES).decode()
        families = list(text_string_to_metric_families(text))
    except (OSError, HTTPException, ValueError) as error:
        raise EnvironmentUnfitError(f"--hardware-from {url} does not answer: {error}.") from error
    names = sorted(
        sample.labels.get("name") or "unknown GPU"
        for family in families
        for sample in family.samples
        if sample.name == INFO
    )
    if not names:
        raise EnvironmentUnfitError(
            f"--hardware-from {url} tells no GPU; it must be the page of "
            "`nemotrt profile gpu --serve`."
        )
    return " + ".join(names)
