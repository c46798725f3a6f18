"""Samples of a run over its steady window."""

import itertools
from collections.abc import Callable, Mapping

from nemotrt.profiles.load.exchange import Ending
from nemotrt.profiles.runs.metrics.metric import NotComputableError
from nemotrt.profiles.runs.metrics.request_metrics import REQUEST_METRICS
from nemotrt.profiles.runs.metrics.request_metrics import ttft_ms as request_ttft_ms
from nemotrt.profiles.runs.metrics.run_view import RunView
from nemotrt.profiles.runs.record import endings
from nemotrt.profiles.runs.record.result import RequestRecord


def per_request(value: Callable[[RequestRecord], float]) -> Callable[[RunView], list[float]]:
    """Return a function that takes `value` of every measured request that has one."""

    def samples(run: RunView) -> list[float]:
        values, reason = [], "no measured request is complete."
        for request in run.measured:
            try:
                values.append(value(request))
            except NotComputableError as error:
                reason = error.message
        if not values:
            raise NotComputableError(reason)
        return values

    return samples


def ttft_ms(run: RunView) -> list[float]:
    """Return the time to the first token of each measured request that has one."""
    if not run.answered:
        raise NotComputableError("no measured request was answered.")
    return [request_ttft_ms(request) for request in run.answered]


def itl_ms(run: RunView) -> list[float]:
    """Return the gaps between the responses of each measured request."""
    gaps = [
        1e3 * (later - earlier)
        for request in run.answered
        for earlier, later in itertools.pairwise(request.arrivals_s)
    ]
    if not gaps:
        raise NotComputableError("itl_ms needs an answer that comes in at least 2 responses.")
    return gaps


def queue_ms(run: RunView) -> list[float]:
    """Return the times in the queue."""
    waits = [
        1e3 * (request.admitted_s - request.due_s)
        for request in run.measured
        if request.admitted_s is not None
    ]
    if not waits:
        raise NotComputableError("the target does not say when a request leaves its queue.")
    return waits


def batch_occupancy(run: RunView) -> list[float]:
    """Return the mean number of running requests, each step weighted by its time."""
    inside = [s for s in run.steps if run.window_start_s < s.end_s <= run.window_end_s]
    total_s = sum(step.end_s - step.start_s for step in inside)
    if not total_s:
        raise NotComputableError("the target does not say how many requests a step holds.")
    weighted = sum((step.end_s - step.start_s) * step.num_running for step in inside)
    return [weighted / total_s]


def over_window(run: RunView, amount: float) -> list[float]:
    """Return an amount a second of the window."""
    if run.window_s <= 0:
        raise NotComputableError("the run has no steady window; give it more requests.")
    return [amount / run.window_s]


def tokens_per_s(run: RunView) -> list[float]:
    """Return the output tokens per second."""
    return over_window(run, sum(num_tokens for _, num_tokens in run.arrivals()))


def prompt_tokens_per_s(run: RunView) -> list[float]:
    """Return the prompt tokens per second."""
    firsts = [(r.arrivals_s[0], r.isl) for r in run.requests if r.arrivals_s and not r.error]
    return over_window(run, sum(isl for at_s, isl in firsts if run.is_inside(at_s)))


def requests_per_s(run: RunView) -> list[float]:
    """Return the ended requests per second."""
    ends = [r.arrivals_s[-1] for r in run.requests if r.is_complete]
    return over_window(run, sum(run.is_inside(end_s) for end_s in ends))


def error_rate(run: RunView) -> list[float]:
    """Return the share of the measured requests that were no success."""
    rate = endings.error_rate(endings.count_endings(run.requests))
    if rate is None:
        raise NotComputableError("no measured request has ended.")
    return [rate]


def _meets(request: RequestRecord, slos: Mapping[str, float]) -> bool:
    """Return whether a request keeps every limit; an answer of one token can't break tpot_ms's.

    Raises:
        NotComputableError: an answer of more tokens came in one response, so nobody knows.
    """
    for name, limit in slos.items():
        try:
            value = REQUEST_METRICS[name](request)
        except NotComputableError:
            if request.num_output_tokens > 1:
                raise
            continue
        if value > limit:
            return False
    return True


def goodput_requests_per_s(run: RunView) -> list[float]:
    """Return the successes a second that keep every SLO; an answer after a refusal is none."""
    if not run.slos:
        raise NotComputableError("no SLO was given (--slo ttft_ms:500).")
    good = [r for r in run.requests if r.ending is Ending.SUCCESS and _meets(r, run.slos)]
    ends = [request.arrivals_s[-1] for request in good]
    return over_window(run, sum(run.is_inside(end_s) for end_s in ends))


def by_server(figure: float | None) -> list[float]:
    """Return a figure that the server itself told, over the window."""
    if figure is None:
        raise NotComputableError("no server metrics were read (--metrics-url), or none of it.")
    return [figure]


def gpu_power_w(run: RunView) -> list[float]:
    """Return the power of each sample in the window, of all watched GPUs."""
    watts = [
        sample.power_w
        for gpu in run.gpus
        for sample in gpu.between(run.window_start_s, run.window_end_s)
        if sample.power_w is not None
    ]
    if not watts:
        raise NotComputableError("no GPU told its power in the window.")
    return watts


def energy_j(run: RunView) -> list[float]:
    """Return the energy of the watched GPUs in the window."""
    # instances of one GPU all tell the whole GPU's energy
    gpus = {gpu.facts.index: gpu for gpu in run.gpus}.values()
    parts = [gpu.energy(run.window_start_s, run.window_end_s) for gpu in gpus]
    joules = [part.joules for part in parts if part is not None]
    if not parts or len(joules) < len(parts):
        raise NotComputableError("no GPU told its energy or power over the whole window.")
    return [sum(joules)]


def joules_per_token(run: RunView) -> list[float]:
    """Return the energy for each output token in the window."""
    num_tokens = sum(count for _, count in run.arrivals())
    if not num_tokens:
        raise NotComputableError("no token came in the window.")
    return [energy_j(run)[0] / num_tokens]


def tokens_per_s_per_gpu(run: RunView) -> list[float]:
    """Return the output tokens per second for each watched GPU."""
    if not run.gpus:
        raise NotComputableError("no GPU was watched.")
    return [tokens_per_s(run)[0] / len({gpu.facts.index for gpu in run.gpus})]


def driver_cpu_us_per_token(run: RunView) -> list[float]:
    """Return the driver's CPU time for each token."""
    num_tokens = sum(request.num_output_tokens for request in run.requests)
    if run.driver_cpu_s is None:
        raise NotComputableError("the load driver does not tell what it used.")
    if not num_tokens:
        raise NotComputableError("no token came back.")
    return [1e6 * run.driver_cpu_s / num_tokens]
