"""How many tokens each response of a stream holds."""

import itertools
from bisect import bisect_right

from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.profiles.load.exchange import Counting, Ending, Exchange
from nemotrt.profiles.load.target import TargetError

# A text is not always cut as the model wrote it: "hel" and "lo" may be one token, and a special
# token shows nothing. A count that is this near is of an answer of the length asked for.
NEAR_SHARE, NEAR_TOKENS = 0.05, 2


class TokenCount:
    """Counts by what the server reports, else by the responses, else by the tokenizer.

    A server may report the tokens of each response, a running total, or one total at the end.
    Numbers that only rise are a running total; whether they do is settled at the end. Where it
    reports none, as many responses as tokens were asked for hold one each; else the tokenizer
    counts the text of each.
    """

    def __init__(self, exchange: Exchange, tokenizer: Tokenizer) -> None:
        """Count into `exchange`."""
        self._tokenizer = tokenizer
        self._texts: list[str] = []
        self.num_input_tokens: int | None = None
        self.total: int | None = None  # as reported at the end
        self._exchange = exchange
        self._reported: list[int | None] = []

    def add(self, arrived_s: float, text: str, reported: int | None) -> None:
        """Note a response; one with neither text nor tokens is an end mark, not an arrival."""
        if reported == 0 or (not text and reported is None):
            return
        self._exchange.add(arrived_s, self._gained(reported))
        self._reported.append(reported)
        self._texts.append(text)

    def end(self, arrived_s: float, reported: int | None) -> None:
        """Note the last response, if it has no text: it may tell of tokens that had none either."""
        last = self._reported[-1] if self._reported else None
        if reported is not None and last is not None and reported > last:
            self.add(arrived_s, "", reported)

    def _gained(self, reported: int | None) -> int:
        """Return the tokens of the next response, as far as one can tell before the end."""
        last = self._reported[-1] if self._reported else 0
        if reported is None or last is None:
            return 1
        return reported - last if reported > last else reported

    def settle(self) -> None:
        """Put the server's own counts in place.

        Raises:
            TargetError: the server read another number of prompt tokens than were meant.
        """
        exchange = self._exchange
        counts = [number for number in self._reported if number is not None]
        is_told = self.total is not None or bool(counts)
        exchange.counting = Counting.SERVER if is_told else Counting.RESPONSES
        if counts and len(counts) == len(self._reported):
            is_total = all(now > then for then, now in itertools.pairwise(counts))
            earlier = [0, *counts[:-1]] if is_total else [0] * len(counts)
            exchange.arrival_tokens[:] = [
                now - then for now, then in zip(counts, earlier, strict=True)
            ]
            if is_total and self.total is not None:  # a last token may have brought no text
                exchange.arrival_tokens[-1] += max(0, self.total - counts[-1])
        elif is_told:
            total = counts[-1] if self.total is None else self.total
            exchange.arrival_tokens[:] = even_shares(total, len(exchange.arrivals_s))
        elif len(exchange.arrivals_s) != exchange.osl:
            exchange.counting = Counting.TOKENIZER
            exchange.arrival_tokens[:] = self._by_tokenizer()
        found = self.num_input_tokens
        if found is not None and found != exchange.isl:
            raise TargetError(
                f"the server read {found} prompt tokens where {exchange.isl} were meant; "
                "is --tokenizer that of the model?",
                Ending.WRONG_PROMPT,
            )

    def _by_tokenizer(self) -> list[int]:
        """Return the tokens of each response's text; a total that is near is what was asked for.

        A token that lies over two responses belongs to the later one.
        """
        ends = self._tokenizer.token_ends("".join(self._texts))
        edges = itertools.accumulate(map(len, self._texts))
        totals = [bisect_right(ends, edge) for edge in edges]
        exchange = self._exchange
        wanted, found = exchange.osl, len(ends)
        is_near = abs(found - wanted) <= max(NEAR_SHARE * wanted, NEAR_TOKENS)
        if found and is_near and exchange.finish_reason in ("", "length"):
            totals = [round(total * wanted / found) for total in totals]
        return [now - then for then, now in itertools.pairwise([0, *totals])]


def even_shares(total: int, count: int) -> list[int]:
    """Return `count` whole numbers that add up to `total`, as even as can be; [] for none."""
    if not count:
        return []
    share, rest = divmod(total, count)
    return [share + (i < rest) for i in range(count)]
