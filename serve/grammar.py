"""Grammars that mask logits: JSON, JSON schemas, regular expressions, Lark, through llguidance."""

import json
import logging
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from nemotrt.engines.guide import COMPLETE, Allowed, Broken, Rule
from nemotrt.engines.tokenizer import Tokenizer
from nemotrt.errors import ConfigError, EnvironmentUnfitError, unknown_name
from nemotrt.serve.grammar_cache import GrammarCache
from nemotrt.serve.request_limits import MAX_GUIDE_CHARACTERS, check_count

log = logging.getLogger("nemotrt.engine")
# llguidance's measure of work at a lexer's first mask, about 0.1 s; its default allows 1.5 s.
# Source: measured, llguidance 1.9.1, 2-core machine, 2026-11-29.
LEXER_FUEL = 250_000


class GrammarGuide:
    """Allows the tokens that keep one sequence within a grammar, the end once it may end."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        """Start at the grammar's beginning."""
        from llguidance.numpy import allocate_token_bitmask

        self._matcher = matcher
        self._vocab_size = vocab_size
        self._bitmask = allocate_token_bitmask(1, vocab_size)

    def rule(self) -> Rule:
        """Return the mask, or that the text is complete, or the grammar's fault."""
        from llguidance.numpy import fill_next_token_bitmask

        if self._matcher.is_error():
            return Broken(f"the grammar failed: {_first_line(self._matcher.get_error())}")
        if self._matcher.is_stopped():
            return COMPLETE
        fill_next_token_bitmask(self._matcher, self._bitmask, 0)
        if self._matcher.is_error():
            return Broken(f"the grammar failed: {_first_line(self._matcher.get_error())}")
        bits = np.unpackbits(self._bitmask[0].view(np.uint8), bitorder="little")
        mask = bits[: self._vocab_size].astype(np.bool_)
        return Allowed(mask) if mask.any() else Broken("the grammar allows no token.")

    def push(self, token: int, text: str) -> None:
        """Advance the grammar."""
        self._matcher.consume_token(token)


class GrammarCompiler:
    """Makes guides for one tokenizer, which is loaded at the first use."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        """Prepare."""
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._cache = GrammarCache()

    def warm_up(self) -> None:
        """Load what every grammar needs, before anyone waits: it holds all threads up."""
        try:
            _ = self._llguidance_tokenizer
        except Exception as error:  # a foreign library; requests with a grammar hear of it again
            log.warning("requests with a grammar will fail: %s", error)

    def has(self, kind: str, guide: str) -> bool:
        """Whether the grammar is compiled already."""
        return self._cache.has(kind, guide)

    def guide(self, kind: str, guide: str) -> GrammarGuide:
        """Return a guide.

        Args:
            kind: json (any object), json_schema, regex or lark.
            guide: the schema, expression or grammar; unused for json.

        Raises:
            ConfigError: the kind is unknown, or the grammar is malformed or too large.
            EnvironmentUnfitError: llguidance is not installed.
        """
        check_count("the grammar", len(guide), MAX_GUIDE_CHARACTERS, "characters")
        matcher = self._cache.matcher(kind, guide, lambda: self._matcher(kind, guide))
        return GrammarGuide(matcher, self._vocab_size)

    def _matcher(self, kind: str, guide: str) -> Any:
        """Return a new matcher whose first mask is computed; llguidance lets other threads run."""
        tokenizer = self._llguidance_tokenizer
        from llguidance import LLMatcher, LLParserLimits

        writers: dict[str, Callable[[], str]] = {
            "json": lambda: str(LLMatcher.grammar_from_json_schema({"type": "object"})),
            "json_schema": lambda: str(LLMatcher.grammar_from_json_schema(_object(guide))),
            "regex": lambda: str(LLMatcher.grammar_from_regex(guide)),
            "lark": lambda: str(LLMatcher.grammar_from_lark(guide)),
        }
        if kind not in writers:
            raise unknown_name("guided_decoding_guide_type", kind, writers)
        grammar = writers[kind]()
        limits = LLParserLimits(initial_lexer_fuel=LEXER_FUEL, verbose_errors=False)
        matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
        rule = GrammarGuide(matcher, self._vocab_size).rule()
        if matcher.is_error():
            raise ConfigError(f"the {kind} grammar is refused: {_first_line(matcher.get_error())}")
        if isinstance(rule, Broken):
            raise ConfigError(f"the {kind} grammar is refused: {rule.reason}")
        return matcher

    @cached_property
    def _llguidance_tokenizer(self) -> Any:
        try:
            from llguidance import LLTokenizer
        except ImportError:
            raise EnvironmentUnfitError(
                "grammars need llguidance: pip install 'nemotrt[serve]'."
            ) from None
        return LLTokenizer(
            self._tokenizer.to_json(),
            n_vocab=self._vocab_size,
            eos_token=list(self._tokenizer.eos_ids),
        )


def _object(text: str) -> dict[str, Any]:
    """Return the JSON schema in `text`."""
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"the JSON schema is not JSON: {error}.") from error
    if not isinstance(schema, dict):
        raise ConfigError("the JSON schema must be an object.")
    return schema


def _first_line(fault: str) -> str:
    """Return the first line of llguidance's words."""
    return fault.strip().splitlines()[0]
