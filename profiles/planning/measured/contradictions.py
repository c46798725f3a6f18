"""Rows that contradict their own campaign: an easier load waited longer for its first token."""

from collections import defaultdict
from collections.abc import Iterable

from nemotrt.profiles.planning.measured.rows import MeasuredRow

# How much longer. Chosen: repeated runs of one load differ by less, and no campaign but one has
# more than a few such rows.
MAX_RATIO = 1.5


def contradicting(rows: Iterable[MeasuredRow]) -> frozenset[int]:
    """Return the numbers of rows whose first tokens came MAX_RATIO later than a harder load's.

    A load is harder with no fewer users, no shorter prompts, no longer answers (so prompts come no
    less often) and no more GPUs. Only what was measured is looked at, no prediction.
    """
    campaigns: dict[tuple[str, ...], list[MeasuredRow]] = defaultdict(list)
    for row in rows:
        if row.ttft_ms and row.concurrency and row.isl and row.osl:
            setup = row.source, row.model, row.gpu, str(row.precision), row.engine
            campaigns[*setup, row.engine_version].append(row)
    return frozenset(
        row.number
        for campaign in campaigns.values()
        for row in campaign
        if any(_is_harder(other, row) and _waits_longer(row, other) for other in campaign)
    )


def _is_harder(one: MeasuredRow, other: MeasuredRow) -> bool:
    """Whether one load asks at least as much of no more GPUs as the other."""
    assert one.concurrency and other.concurrency and one.isl and other.isl and one.osl and other.osl
    is_as_long = one.isl >= other.isl and one.osl <= other.osl
    return is_as_long and one.concurrency >= other.concurrency and one.tp <= other.tp


def _waits_longer(one: MeasuredRow, other: MeasuredRow) -> bool:
    assert one.ttft_ms and other.ttft_ms
    return one.ttft_ms > MAX_RATIO * other.ttft_ms
