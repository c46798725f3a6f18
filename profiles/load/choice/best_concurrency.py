"""Which number of users to try next, from the throughputs of those that were tried."""

from collections.abc import Mapping

# A doubling of users that brings less than this has found the knee.
MIN_GAIN = 0.03
MAX_CONCURRENCY = 1024
# Between the doublings, steps of this share of the users or less are not told apart.
RESOLUTION = 1 / 8
# Of a steady system no search needs more middles; noise may move the best again and again.
MAX_MIDDLES = 6


def next_concurrency(
    rates: Mapping[int, float], max_concurrency: int = MAX_CONCURRENCY
) -> int | None:
    """Return the next concurrency to measure, None when the best is found.

    First 1, 2, 4, ..., until twice the users bring less than MIN_GAIN; then the middles between
    the fastest and its neighbours, until these are within RESOLUTION of it, MAX_MIDDLES at most.

    Args:
        rates: tokens/s by concurrency, of all that were measured.
        max_concurrency: the doubling goes no further.
    """
    if not rates:
        return 1
    tried = sorted(rates)
    powers = [users for users in tried if users & (users - 1) == 0]
    last = powers[-1]
    is_rising = last == 1 or rates[last] >= rates[last // 2] * (1 + MIN_GAIN)
    if is_rising and 2 * last <= max_concurrency:
        return 2 * last
    if len(tried) - len(powers) >= MAX_MIDDLES:
        return None
    best = max(tried, key=lambda users: rates[users])
    place = tried.index(best)
    for neighbour in (*tried[max(place - 1, 0) : place], *tried[place + 1 : place + 2]):
        if abs(neighbour - best) > max(1, best * RESOLUTION):
            return (neighbour + best) // 2
    return None
