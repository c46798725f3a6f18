"""Grammars that mask logits: JSON, JSON schemas, regular expressions, Lark, through llguidance."""

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.guide import COMPLETE, Allowed, Broken, Rule
from nemotrt.engines.tokenizer import Tokenizer
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.serve.deep_stack import on_deep_stack
from nemotrt.serve.grammar_cache import GrammarCache
from nemotrt.serve.grammar_text import grammar_text
from nemotrt.serve.request_limits import MAX_GUIDE_CHARACTERS, check_count

log = logging.getLogger("nemotrt.engine")
# llguidance's compiler recurses along chains of references and rules: up to 0.5 KiB of stack per
# character. Source: measured, llguidance 1.9.1, 2026-11-29.
STACK_BYTES, STACK_BYTES_PER_CHARACTER = 16 << 20, 2 << 10
# Four items for an optional property; a mask then takes up to 50 ms. The library's own limit, 2000,
# is less than 500 properties. Source: measured, llguidance 1.9.1, 2-core machine, 2026-11-29.
MAX_ITEMS_IN_ROW = 10_000
# llguidance's measure of work at a lexer's first mask, about 0.1 s; its default allows 1.5 s.
# Source: measured, llguidance 1.9.1, 2-core machine, 2026-11-29.
LEXER_FUEL = 250_000


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer as grammars see it.

    Each mask is [vocab] of the logits, which may have more entries than the tokenizer, or fewer.
    """

    tokenizer: Any  # llguidance's
    is_known: npt.NDArray[np.bool_]  # the tokenizer has the id: the others are padding
    is_end: npt.NDArray[np.bool_]


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
            return Broken(f"the grammar failed: {_fault_of(error)}")

    def push(self, token: int, text: str) -> None:
        """Advance the grammar."""
        try:
            self._matcher.consume_token(token)
        except BaseException as error:
            self._fault = f"the grammar failed: {_fault_of(error)}"

    def push_text(self, text: str) -> None:
        """Advance the grammar by text that is no token of its own: the rest of one.

        A token that closes a reasoning trace may carry the answer's first characters. White space
        between the tag and the answer is dropped where the grammar has none. The text has been
        sampled and sent, so text that does not fit is the request's end, with the reason.
        """
        try:
            fits = any(self._try(candidate) for candidate in (text, text.lstrip()))
        except BaseException as error:
            self._fault = f"the grammar failed: {_fault_of(error)}"
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
                return COMPLETE
            bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        if matcher.is_error():
            return Broken(f"the grammar failed: {_reason(matcher.get_error())}")
        unpacked = np.unpackbits(bits, bitorder="little").astype(np.bool_)
        mask = unpacked[: vocabulary.is_known.size] & vocabulary.is_known
        if not mask.any():
            return Broken("the grammar allows no token.")
        is_whole = not (mask & ~vocabulary.is_end).any()
        return COMPLETE if is_whole else Allowed(mask)


class GrammarCompiler:
    """Makes guides for one tokenizer, which is loaded at the first use."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_ids: tuple[int, ...]) -> None:
        """Prepare; `end_ids` are all that end a sequence."""
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._end_ids = [token for token in end_ids if 0 <= token < vocab_size]
        self._cache = GrammarCache()

    def warm_up(self) -> None:
        """Load what every grammar needs, before anyone waits: it holds all threads up."""
        try:
            _ = self._vocabulary
        except Exception as error:  # a foreign library; requests with a grammar hear of it again
            log.warning("requests with a grammar will fail: %s", error)

    def has(self, kind: str, guide: str) -> bool:
        """Whether the grammar is compiled already."""
        return self._cache.has(kind, guide)

    def guide(self, kind: str, guide: str) -> GrammarGuide:
        """Return a guide.

        Args:
            kind: json (any object), json_schema, regex or lark.
            guide: the schema, expression or grammar; nothing for json.

        Raises:
            ConfigError: the kind is unknown, or the grammar is malformed or too large, allows no
                text, or has what llguidance can't keep.
            EnvironmentUnfitError: llguidance is not installed.
        """
        check_count("the grammar", len(guide), MAX_GUIDE_CHARACTERS, "characters")
        matcher = self._cache.matcher(kind, guide, lambda: self._matcher(kind, guide))
        return GrammarGuide(matcher, self._vocabulary)

    def _matcher(self, kind: str, guide: str) -> Any:
        """Return a new matcher whose first mask is computed; llguidance lets other threads run."""
        vocabulary = self._vocabulary
        stack_bytes = STACK_BYTES + STACK_BYTES_PER_CHARACTER * len(guide)
        try:
            matcher, fault = on_deep_stack(lambda: _compiled(kind, guide, vocabulary), stack_bytes)
        except ConfigError:
            raise
        except BaseException as error:
            fault = _fault_of(error)
        if fault:
            raise ConfigError(f"the {kind} grammar is refused: {fault}")
        return matcher

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        try:
            from llguidance import LLTokenizer
        except ImportError:
            raise EnvironmentUnfitError(
                "grammars need llguidance: pip install 'nemotrt[serve]'."
            ) from None
        ids = np.array(self._tokenizer.ids, np.int64)
        is_known, is_end = np.zeros((2, self._vocab_size), np.bool_)
        is_known[ids[ids < self._vocab_size]] = True
        is_known[self._end_ids] = True
        is_end[self._end_ids] = True
        tokenizer = LLTokenizer(
            self._tokenizer.to_json(),
            n_vocab=max(self._vocab_size, int(ids.max()) + 1),
            eos_token=self._end_ids or None,
        )
        return Vocabulary(tokenizer, is_known, is_end)


def _compiled(kind: str, guide: str, vocabulary: Vocabulary) -> tuple[Any, str]:
    """Return a matcher, and what is wrong with it."""
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(
        max_items_in_row=MAX_ITEMS_IN_ROW, initial_lexer_fuel=LEXER_FUEL, verbose_errors=False
    )
    grammar = grammar_text(kind, guide)
    matcher = LLMatcher(vocabulary.tokenizer, grammar, log_level=0, limits=limits)
    if not matcher.is_error() and (warnings := matcher.get_grammar_warnings()):
        return matcher, _reason(warnings[0])
    rule = GrammarGuide(matcher, vocabulary).rule()  # what fails at once is refused at once
    if matcher.is_error():
        return matcher, _reason(matcher.get_error())
    return matcher, rule.reason if isinstance(rule, Broken) else ""


def _fault_of(error: BaseException) -> str:
    """Return what a library's exception says; a fault of Rust code is no Exception."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    return _reason(str(error))


def _reason(fault: str) -> str:
    """Return the first line of llguidance's words, and the line in which a parser says more."""
    if "NoExtensionBias" in fault:
        return "it allows no text."
    lines = [line.strip() for line in fault.strip().splitlines()] or ["no reason is given."]
    return " ".join([lines[0], *(line for line in lines[1:] if line.startswith("error: "))])
