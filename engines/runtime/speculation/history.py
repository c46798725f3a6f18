"""What a tenant's requests were answered lately: the next answer may say it again."""

from collections import OrderedDict
from collections.abc import Sequence

from nemotrt.engines.runtime.speculation.lookup import BOUNDARY, Places

MAX_TOKENS_EACH = 1 << 14  # of a tenant; a token and its pair take about 200 bytes
MAX_TOKENS = 1 << 17


class History:
    """The last answers by salt; those of other salts are never seen, as with kept prefixes."""

    def __init__(self, max_tokens: int = MAX_TOKENS, max_each: int = MAX_TOKENS_EACH) -> None:
        """Start empty; the limits are of all answers and of those of one salt."""
        self._max_tokens, self._max_each = max_tokens, max_each
        self._places: OrderedDict[str, Places] = OrderedDict()
        self.num_tokens = 0  # all that is remembered, and what stands between answers

    def of(self, salt: str) -> Places | None:
        """Return what is known of a salt."""
        return self._places.get(salt)

    def add(self, salt: str, answer: Sequence[int]) -> None:
        """Remember an answer; the oldest are forgotten: a salt's, then those of the salt unused."""
        half = self._max_each // 2
        answer = answer[-(half - 1) :]
        places = self._places.pop(salt, None) or Places()
        self.num_tokens -= len(places.tokens)
        if len(places.tokens) + len(answer) >= self._max_each:
            kept = places.tokens[-half:]
            places = Places()  # who follows the old one goes on there
            places.extend(kept)
        places.extend((*answer, BOUNDARY))
        self._places[salt] = places
        self.num_tokens += len(places.tokens)
        while len(self._places) > 1 and self.num_tokens > self._max_tokens:
            _, forgotten = self._places.popitem(last=False)
            self.num_tokens -= len(forgotten.tokens)
