"""A guide that keeps one sequence within a compiled grammar."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.runtime.sampling.guide import COMPLETE, Allowed, Broken, Rule
from nemotrt.engines.runtime.sampling.token_bits import clear_bits

# llguidance's words for a text to which nothing can be added; it stops for its limits too.
WHOLE = ("NoExtension", "EndOfSentence")
Bits = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """A tokenizer as grammars see it, which computes their masks.

    Bits are of the logits' tokens, of which there may be more than the tokenizer has, or fewer.
    """

    tokenizer: Any  # llguidance's
    size: int  # of the logits
    known: Bits  # bits: the tokenizer has the id, the others are padding
    end_ids: tuple[int, ...]

    def prepare(self, guides: Sequence["GrammarGuide"]) -> None:
        """Compute the masks of guides that have none, on llguidance's threads.

        Guides of one grammar share its lexer, which one thread at a time can use; those of
        different grammars are computed in parallel.
        """
        due = [guide for guide in guides if guide.needs_mask]
        masks = self._room(len(due))
        pairs = [(guide.matcher, number) for number, guide in enumerate(due)]
        try:
            _executor().unsafe_compute_mask_ptr(pairs, masks.ctypes.data, masks.shape[1], len(due))
        except BaseException as error:
            fault_of(error)  # each guide's rule finds its own
            return
        for guide, mask in zip(due, self._of_logits(masks), strict=True):
            guide.mask = mask

    def mask(self, matcher: Any) -> Bits:
        """Return what a matcher allows next, of the tokens that the tokenizer has."""
        masks = self._room(1)
        matcher.unsafe_compute_mask_ptr(masks.ctypes.data, masks.shape[1])
        mask: Bits = self._of_logits(masks)[0]
        return mask

    def has_only_ends(self, mask: Bits) -> bool:
        """Whether a mask allows nothing but the text's end."""
        may_end = any(mask[token // 8] >> token % 8 & 1 for token in self.end_ids)
        if not may_end:
            return False
        rest = mask.copy()
        clear_bits(rest, self.end_ids)
        return not rest.any()

    def _room(self, count: int) -> Bits:
        """Return room for masks of the tokenizer's tokens, in words; the logits have no more."""
        return np.zeros((count, (self.tokenizer.vocab_size + 31) // 32 * 4), np.uint8)

    def _of_logits(self, masks: Bits) -> Bits:
        """Return the bits of the logits' tokens, without those that the tokenizer lacks."""
        bits = masks[:, : self.known.size]
        bits &= self.known
        return bits


class GrammarGuide:
    """Allows the tokens that keep one sequence within a grammar, the end once it may end."""

    def __init__(self, matcher: Any, vocabulary: Vocabulary) -> None:
        """Start where the matcher is."""
        self.matcher = matcher
        self.batch = vocabulary
        self.mask: Bits | None = None  # of the next token, once it is computed
        self._fault = ""

    @property
    def needs_mask(self) -> bool:
        """Whether the next rule asks the matcher for a mask."""
        try:
            return self.mask is None and not (
                self._fault or self.matcher.is_error() or self.matcher.is_stopped()
            )
        except BaseException as error:
            fault_of(error)  # the rule finds it too
            return False

    def rule(self) -> Rule:
        """Return the mask, or that the text is complete, or the grammar's fault."""
        try:
            return self._rule()
        except BaseException as error:
            return Broken(f"the grammar failed: {fault_of(error)}")

    def ahead(self) -> list[int]:
        """Return the usual tokens of the text that must come next; none where many texts may."""
        try:
            return list(self.matcher.compute_ff_tokens())
        except BaseException as error:
            fault_of(error)  # the rule finds it too
            return []

    def push(self, token: int, text: str) -> None:
        """Advance the grammar."""
        self.mask = None
        try:
            self.matcher.consume_token(token)
        except BaseException as error:
            self._fault = f"the grammar failed: {fault_of(error)}"

    def push_text(self, text: str) -> None:
        """Advance the grammar by text that is no token of its own: the rest of one.

        A token that closes a reasoning trace may carry the answer's first characters. White space
        between the tag and the answer is dropped where the grammar has none. The text has been
        sampled and sent, so text that does not fit is the request's end, with the reason.
        """
        self.mask = None
        try:
            fits = any(self._try(candidate) for candidate in (text, text.lstrip()))
        except BaseException as error:
            self._fault = f"the grammar failed: {fault_of(error)}"
            return
        if not fits and not self.matcher.is_error():
            self._fault = f"the answer begins with {text!r}, which its grammar does not allow."

    def restart(self) -> None:
        """Go back to the grammar's beginning: what was pushed turned out to be no answer."""
        self.mask = None
        self._fault = "" if self.matcher.reset() else "the grammar can't begin again."

    def _try(self, text: str) -> bool:
        """Advance by a text, or not at all; return whether it fits."""
        tokens = self.batch.tokenizer.greedy_tokenize(text)
        if not tokens:
            return not text
        if self.batch.tokenizer.decode_bytes(tokens) != text.encode():
            return False
        if self.matcher.validate_tokens(tokens) < len(tokens):
            return False
        return bool(self.matcher.consume_tokens(tokens))

    def _rule(self) -> Rule:
        matcher, vocabulary = self.matcher, self.batch
        if self._fault:
            return Broken(self._fault)
        if not matcher.is_error():
            if matcher.is_stopped():
                reason = matcher.stop_reason()
                return COMPLETE if reason in WHOLE else Broken(f"the grammar failed: {reason}.")
            mask = vocabulary.mask(matcher) if self.mask is None else self.mask
        if matcher.is_error():
            return Broken(f"the grammar failed: {reason_of(matcher.get_error())}")
        self.mask = mask
        if not mask.any():
            return Broken("the grammar allows no token.")
        if vocabulary.has_only_ends(mask):
            return COMPLETE
        return Allowed.of_bits(mask, vocabulary.size)


@functools.cache
def _executor() -> Any:
    """Return llguidance's threads, of which a process has one team."""
    from llguidance import LLExecutor

    return LLExecutor()


def fault_of(error: BaseException) -> str:
    """Return what a library's exception says; a fault of Rust code is no Exception."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return reason_of(str(error))


def reason_of(fault: str) -> str:
    """Return the first line of llguidance's words, and the line in which a parser says more."""
    if "NoExtensionBias" in fault:
        return "it allows no text."
    lines = [line.strip() for line in fault.strip().splitlines()] or ["no reason is given."]
    return " ".join([lines[0], *(line for line in lines[1:] if line.startswith("error: "))])
