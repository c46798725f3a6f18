"""A guide that keeps one sequence within a compiled grammar."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.guide import COMPLETE, Allowed, Broken, Rule

# llguidance's words for a text to which nothing can be added; it stops for its limits too.
WHOLE = ("NoExtension", "EndOfSentence")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer as grammars see it.

    Bits are of the logits' tokens, of which there may be more than the tokenizer has, or fewer.
    """

    tokenizer: Any  # llguidance's
    size: int  # of the logits
    known: npt.NDArray[np.uint8]  # bits: the tokenizer has the id, the others are padding
    ends: npt.NDArray[np.uint8]  # bits


class GrammarGuide:
    """Allows the tokens that keep one sequence within a grammar, the end once it may end."""

    def __init__(self, matcher: Any, vocabulary: Vocabulary) -> None:
        """Start where the matcher is."""
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._fault = ""

    def rule(self) -> Rule:
        """Return the mask, or that the text is complete, or the grammar's fault."""
        try:
            return self._rule()
        except BaseException as error:
            return Broken(f"the grammar failed: {fault_of(error)}")

    def push(self, token: int, text: str) -> None:
        """Advance the grammar."""
        try:
            self._matcher.consume_token(token)
        except BaseException as error:
            self._fault = f"the grammar failed: {fault_of(error)}"

    def push_text(self, text: str) -> None:
        """Advance the grammar by text that is no token of its own: the rest of one.

        A token that closes a reasoning trace may carry the answer's first characters. White space
        between the tag and the answer is dropped where the grammar has none. The text has been
        sampled and sent, so text that does not fit is the request's end, with the reason.
        """
        try:
            fits = any(self._try(candidate) for candidate in (text, text.lstrip()))
        except BaseException as error:
            self._fault = f"the grammar failed: {fault_of(error)}"
            return
        if not fits and not self._matcher.is_error():
            self._fault = f"the answer begins with {text!r}, which its grammar does not allow."

    def restart(self) -> None:
        """Go back to the grammar's beginning: what was pushed turned out to be no answer."""
        self._fault = "" if self._matcher.reset() else "the grammar can't begin again."

    def _try(self, text: str) -> bool:
        """Advance by a text, or not at all; return whether it fits."""
        tokens = self._vocabulary.tokenizer.greedy_tokenize(text)
        if not tokens:
            return not text
        if self._vocabulary.tokenizer.decode_bytes(tokens) != text.encode():
            return False
        if self._matcher.validate_tokens(tokens) < len(tokens):
            return False
        return bool(self._matcher.consume_tokens(tokens))

    def _rule(self) -> Rule:
        matcher, vocabulary = self._matcher, self._vocabulary
        if self._fault:
            return Broken(self._fault)
        if not matcher.is_error():
            if matcher.is_stopped():
                reason = matcher.stop_reason()
                return COMPLETE if reason in WHOLE else Broken(f"the grammar failed: {reason}.")
            found = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        if matcher.is_error():
            return Broken(f"the grammar failed: {reason_of(matcher.get_error())}")
        bits = vocabulary.known.copy()
        bits[: found.size] &= found[: bits.size]
        bits[found.size :] = 0
        if not bits.any():
            return Broken("the grammar allows no token.")
        is_whole = not (bits & ~vocabulary.ends).any()
        return COMPLETE if is_whole else Allowed.of_bits(bits, vocabulary.size)


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
