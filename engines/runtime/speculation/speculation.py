"""Guesses what sequences say next, for an engine that looks at several tokens of one at a time."""

from collections.abc import Sequence

from nemotrt.engines.runtime.engine import TakesDrafts
from nemotrt.engines.runtime.request import Request
from nemotrt.engines.runtime.request_scheduler import SpeculationStats
from nemotrt.engines.runtime.sampling.guide import known_ahead
from nemotrt.engines.runtime.speculation.history import History
from nemotrt.engines.runtime.speculation.lookup import MAX_MATCH, Places, Pointer
from nemotrt.engines.runtime.speculation.worth import MARGIN, Record, StepCost, worthwhile

PROMPT_TOKENS_AT_ONCE = 4096  # that are read between two steps, in some ms


class Guesser:
    """One sequence's text, and the place in it or in earlier answers that it follows now."""

    def __init__(self, request: Request, history: History, record: Record) -> None:
        """Start before the prompt."""
        self.request = request
        self._history = history
        self._record = Record(record)
        self._own = Places()
        self._pointer: Pointer | None = None

    def guesses(self, output: Sequence[int], most: int) -> tuple[list[int], list[float]]:
        """Return what may follow the output, and the chance of each to be reached and right.

        What the request's guide forces comes first, and is all there is where the text says
        something else.
        """
        if not self._catch_up(output):
            return [], []
        forced = known_ahead(self.request.guide)[:most]
        pointer = self._pointer
        copied = [] if pointer is None else pointer.tokens(most)
        if pointer is None or copied[: len(forced)] != forced:
            return forced, [1.0] * len(forced)
        chances = self._record.chances(pointer.length, len(copied))
        return copied, [1.0] * len(forced) + chances[len(forced) :]

    def _catch_up(self, output: Sequence[int]) -> bool:
        """Read what is new of the text; False if there is more to read."""
        num_known, prompt = len(self._own.tokens), self.request.prompt
        if num_known < len(prompt):
            end = num_known + PROMPT_TOKENS_AT_ONCE
            self._own.extend(prompt[num_known:end])
            if end < len(prompt):
                return False
            self._search()
            num_known = len(prompt)
        for token in output[num_known - len(prompt) :]:
            self._push(token)
        return True

    def _push(self, token: int) -> None:
        """Read a token; see whether the place that was followed said so too."""
        pointer = self._pointer
        if pointer is not None:
            is_right = pointer.next_token == token
            self._record.note(pointer.length, is_right=is_right)
            pointer.place, pointer.length = pointer.place + 1, pointer.length + 1
            if not is_right:
                self._pointer = None
        self._own.extend((token,))
        if self._pointer is None or self._pointer.length < MAX_MATCH:
            self._search()

    def _search(self) -> None:
        """Follow the place that agrees with the text furthest back, if it does so further."""
        text, earlier = self._own.tokens, self._history.of(self.request.pool)
        for places in (self._own, earlier) if earlier is not None else (self._own,):
            place, length = places.find(text)
            if length > (0 if self._pointer is None else self._pointer.length):
                self._pointer = Pointer(places, place, length)


class Speculation:
    """Over one engine; not thread-safe."""

    def __init__(self, engine: TakesDrafts) -> None:
        """Start with nothing known."""
        self.stats = SpeculationStats()
        self._engine = engine
        self._history = History()
        self._record = Record()
        self._cost = StepCost()

    def begin(self, request: Request) -> Guesser:
        """Return what guesses a request's tokens."""
        return Guesser(request, self._history, self._record)

    def guesses(
        self, asked: Sequence[tuple[Guesser, Sequence[int]]], room: int
    ) -> list[Sequence[int]]:
        """Return what each sequence is fed behind its last token: what is worth its time.

        Args:
            asked: each one that gets a token in the step, with its output.
            room: for tokens of all together.
        """
        if not asked or 1 / len(asked) <= MARGIN * self._cost.share(len(asked)):
            return [()] * len(asked)  # not even one that is surely right
        found: list[list[int]] = []
        chances = {}
        for number, (guesser, output) in enumerate(asked):
            left = guesser.request.params.max_tokens - len(output) - 1
            tokens, own = guesser.guesses(output, min(self._engine.max_draft - 1, left))
            found.append(tokens)
            chances[number] = own
        counts = worthwhile(chances, len(asked), room, self._cost)
        return [tokens[: counts[number]] for number, tokens in enumerate(found)]

    def settle(self, accepted: dict[int, int], drafted: int) -> None:
        """Have slots hold what was right of their drafts, of so many guesses together."""
        self._engine.accept(accepted)
        self.stats.drafts += len(accepted)
        self.stats.drafted_tokens += drafted
        self.stats.accepted_tokens += sum(accepted.values()) - len(accepted)

    def took(self, num_tokens: int, seconds: float) -> None:
        """Note how long a step took that fed no prompt."""
        self._cost.note(num_tokens, seconds)

    def ended(self, request: Request, output: Sequence[int]) -> None:
        """Remember an answer for the next of the same salt."""
        self._history.add(request.pool, output)
