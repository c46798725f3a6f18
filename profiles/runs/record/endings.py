"""How a run's measured requests ended: counted, as a rate, and in one sentence."""

from collections import Counter
from collections.abc import Iterable, Mapping

from nemotrt.profiles.load.exchange import Ending, Phase
from nemotrt.profiles.runs.record.result import RequestRecord


def count_endings(requests: Iterable[RequestRecord]) -> dict[Ending, int]:
    """Return how many measured requests ended in each way that occurred, in the enum's order."""
    counts = Counter(r.ending for r in requests if r.phase is Phase.MEASURED)
    return {ending: counts[ending] for ending in Ending if counts[ending]}


def error_rate(endings: Mapping[Ending, int]) -> float | None:
    """Return the share of the ended requests that were no success; None if none has ended.

    One that was answered after a refusal is none.
    """
    num_ended = sum(endings.values()) - endings.get(Ending.OPEN, 0)
    return 1 - endings.get(Ending.SUCCESS, 0) / num_ended if num_ended else None


def errors_text(endings: Mapping[Ending, int]) -> str:
    """Return what did not go well and whose the latencies are, "" if all went well."""
    if not error_rate(endings):
        return ""
    others = {e: n for e, n in endings.items() if e not in (Ending.SUCCESS, Ending.OPEN)}
    kinds = ", ".join(f"{count} {ending}" for ending, count in others.items())
    num_ended = sum(endings.values()) - endings.get(Ending.OPEN, 0)
    num_answered = sum(count for ending, count in endings.items() if ending.is_answer)
    return (
        f"{sum(others.values())} of {num_ended} measured requests ({error_rate(endings):.1%}) were "
        f"no success: {kinds}. Latencies are those of the {num_answered} that were answered; "
        "throughput has no token of the others."
    )
