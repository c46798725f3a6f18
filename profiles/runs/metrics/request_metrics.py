"""Latencies of one complete request."""

from nemotrt.profiles.runs.metrics.metric import NotComputableError
from nemotrt.profiles.runs.record.result import RequestRecord


def ttft_ms(request: RequestRecord) -> float:
    """Return the time to the first token."""
    return 1e3 * (request.arrivals_s[0] - request.due_s)


def e2e_latency_ms(request: RequestRecord) -> float:
    """Return the time to the last token."""
    return 1e3 * (request.arrivals_s[-1] - request.due_s)


def tpot_ms(request: RequestRecord) -> float:
    """Return the mean time of a token after the first response, which may hold several.

    Raises:
        NotComputableError: no token came after the first response.
    """
    if request.num_output_tokens < 2:
        raise NotComputableError("tpot_ms needs an answer of at least 2 tokens (osl >= 2).")
    num_later = sum(request.arrival_tokens[1:])
    if not num_later:
        raise NotComputableError("tpot_ms needs an answer that comes in at least 2 responses.")
    return 1e3 * (request.arrivals_s[-1] - request.arrivals_s[0]) / num_later


REQUEST_METRICS = {"ttft_ms": ttft_ms, "tpot_ms": tpot_ms, "e2e_latency_ms": e2e_latency_ms}
