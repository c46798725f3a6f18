"""Who has a slot: requests are given one, give theirs up to a better one, and leave."""

from collections.abc import Callable

from nemotrt.engines.runtime.pipeline import Pipeline
from nemotrt.engines.runtime.request import FinishReason, Request, Update
from nemotrt.engines.runtime.sampling.guide import Broken, Complete
from nemotrt.engines.runtime.scheduling.line import Line, Parked
from nemotrt.engines.runtime.scheduling.prompt_scores import PromptScores
from nemotrt.engines.runtime.scheduling.reuse import Reuse
from nemotrt.engines.runtime.scheduling.running_request import RunningRequest, next_rules
from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.errors import EnvironmentUnfitError


class SlotHolders:
    """The slots of one pipeline, and the line before them.

    Args:
        pipeline: where the slots are.
        num_slots: how many there are.
        tokenizer: makes text; None gives tokens without text.
        eos_ids: ids that end a sequence.
        reuse: keeps states; with it, a request of a better priority takes the slot of a worse one.
        adapt: gives a slot an adapter by its name, where the engine has any.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        num_slots: int,
        *,
        tokenizer: Tokenizer | None,
        eos_ids: tuple[int, ...],
        reuse: Reuse | None,
        adapt: Callable[[int, str], None] | None = None,
    ) -> None:
        """Start with all slots free."""
        self.line = Line()
        self.running: dict[str, RunningRequest] = {}
        self._pipeline = pipeline
        self._num_slots = num_slots
        self._tokenizer = tokenizer
        self._eos_ids = eos_ids
        self._reuse = reuse
        self._adapt = adapt

    def admit(self, settle: Callable[[], list[Update]]) -> list[Update]:
        """Give slots to those who wait, in order.

        Args:
            settle: takes the tokens that are being chosen, after which none is due; a slot is
                taken from a sequence after that alone.

        Returns:
            What `settle` brought, and the ends of requests that need no slot.
        """
        updates: list[Update] = []
        for request in self.line:
            if not self.line.has_parked(request) and self._awaits_prefix(request):
                continue  # who was parked has its own state
            if not self._has_room:
                worse = self._worse(request)
                if not worse:
                    break
                updates += settle()
                if not self._make_room(worse):
                    break
            left = self.line.leave(request.request_id)
            if isinstance(left, Parked):
                self._resume(left)
            else:
                updates += self._start(request)
            del left  # the next one's state may need its room
        return updates

    def cancel(self, request_id: str) -> bool:
        """End a request wherever it is; False if it is not here."""
        left = self.line.leave(request_id)
        if isinstance(left, Parked):
            self._free(left)
        elif left is None and request_id in self.running:
            self.end(self.running[request_id])
        elif left is None:
            return False
        if self._reuse is not None:
            self._reuse.forget(request_id)
        return True

    def end(self, sequence: RunningRequest, *, is_sound: bool = True) -> None:
        """Free a sequence's slot, and keep what it leaves; not if its logits were no numbers."""
        del self.running[sequence.request.request_id]
        if self._reuse is not None and sequence.keeping is not None:
            self._reuse.ended(sequence.keeping, sequence.output, is_sound=is_sound)
        self._pipeline.release(sequence.place)

    def has(self, sequence: RunningRequest) -> bool:
        """Whether the sequence has not ended since."""
        return self.running.get(sequence.request.request_id) is sequence

    def _start(self, request: Request) -> list[Update]:
        """Give a request a slot, with what is known of its prompt; or return its end."""
        [rule] = next_rules([request])
        if isinstance(rule, Complete | Broken):  # nothing may come at all
            cached = None if self._reuse is None else 0  # it computes nothing
            if self._reuse is not None:
                self._reuse.forget(request.request_id)
            return [_ended_at_once(request.request_id, rule, cached)]
        sequence = self.running[request.request_id] = RunningRequest(
            request,
            self._pipeline.open(request.params, request.prompt, self._eos_ids),
            request.text_stream(self._tokenizer),
            PromptScores(request.prompt, request.params.prompt_logprobs),
            rule=rule,
        )
        self._give_adapter(sequence)
        if self._reuse is not None:
            keeping = self._reuse.begin(request, sequence.place.slot, sequence.scores)
            sequence.keeping, sequence.num_fed = keeping, keeping.num_found
        return []

    def _give_adapter(self, sequence: RunningRequest) -> None:
        """Give a sequence's new slot its adapter, if it has one."""
        if self._adapt is not None and sequence.request.adapter:
            self._adapt(sequence.place.slot, sequence.request.adapter)

    def _awaits_prefix(self, request: Request) -> bool:
        """Whether a running sequence computes what the request begins with, and leaves it."""
        if self._reuse is None or len(self.running) == 0:
            return False
        others = [
            sequence.keeping
            for sequence in self.running.values()
            if sequence.keeping is not None and not sequence.is_decoding
        ]
        return bool(others) and self._reuse.must_wait(request, others)

    @property
    def _has_room(self) -> bool:
        """Whether a slot is free."""
        return len(self.running) < self._num_slots

    def _worse(self, request: Request) -> list[RunningRequest]:
        """Return who may give way to a request, worst and last first."""
        if self._reuse is None:
            return []
        worse = [
            sequence
            for sequence in self.running.values()
            if sequence.request.priority > request.priority
        ]
        return sorted(reversed(worse), key=lambda sequence: -sequence.request.priority)

    def _make_room(self, worse: list[RunningRequest]) -> bool:
        """Park the first that has not ended, if a slot is needed still; no token may be due."""
        for sequence in worse:
            if self._has_room:
                return True
            if self.has(sequence) and not self._park(sequence):
                return False
        return self._has_room

    def _park(self, sequence: RunningRequest) -> bool:
        """Move a sequence's state to the host; False if there is no room for it."""
        reuse = self._reuse
        if reuse is None:
            return False
        num_bytes = reuse.bytes_of(sequence.place.slot)
        if not reuse.cache.reserve(num_bytes):
            return False
        try:
            place = self._pipeline.park(sequence.place)
        except EnvironmentUnfitError as error:
            reuse.cache.free(num_bytes)
            reuse.ran_out(error)
            return False
        del self.running[sequence.request.request_id]
        self.line.park(Parked(sequence, place, num_bytes))
        reuse.cache.stats.preemptions += 1
        return True

    def _resume(self, parked: Parked) -> None:
        """Give a parked sequence a slot again."""
        sequence = parked.sequence
        sequence.place = self._pipeline.resume(parked.place)
        self._give_adapter(sequence)
        if sequence.keeping is not None:
            sequence.keeping.slot = sequence.place.slot
        self.running[sequence.request.request_id] = sequence
        self._free(parked)

    def _free(self, parked: Parked) -> None:
        """Give back a parked state's bytes."""
        if self._reuse is not None:
            self._reuse.cache.free(parked.num_bytes)


def _ended_at_once(request_id: str, rule: Complete | Broken, cached: int | None) -> Update:
    """Return the end of a request whose guide allows no first token."""
    if isinstance(rule, Broken):
        return Update(request_id, finish_reason=FinishReason.ERROR, error=rule.reason)
    return Update(request_id, finish_reason=FinishReason.STOP, cached_tokens=cached)
