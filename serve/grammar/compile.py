"""Compiles grammars for a tokenizer, through llguidance."""

from typing import Any

import numpy as np

from nemotrt import needs
from nemotrt.engines.runtime.sampling.guide import Broken
from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.serve.grammar.deep_stack import on_deep_stack
from nemotrt.serve.grammar.guide import GrammarGuide, Vocabulary, fault_of, reason_of
from nemotrt.serve.grammar.text import grammar_text

# llguidance's compiler recurses along chains of references and rules: up to 0.5 KiB of stack per
# character. Source: measured, llguidance 1.9.1, 2026-11-29.
STACK_BYTES, STACK_BYTES_PER_CHARACTER = 16 << 20, 2 << 10
# Four items for an optional property. A mask of so many takes up to 20 ms of the engine's thread;
# the library's own limit, 2000, is less than 500 properties.
# Source: measured, llguidance 1.9.1, 2-core machine, 2026-11-29.
MAX_ITEMS_IN_ROW = 4_000
# llguidance's measure of work at a lexer's first mask, about 0.1 s; its default allows 1.5 s.
# Source: measured, llguidance 1.9.1, 2-core machine, 2026-11-29.
LEXER_FUEL = 250_000


def grammar_vocabulary(tokenizer: Tokenizer, vocab_size: int, end_ids: list[int]) -> Vocabulary:
    """Return a tokenizer as grammars see it, for `vocab_size` logits; `end_ids` end a text.

    Raises:
        EnvironmentUnfitError: llguidance is not installed.
    """
    try:
        from llguidance import LLTokenizer
    except ImportError:
        raise EnvironmentUnfitError(f"grammars need llguidance: {needs.LLGUIDANCE.cure}.") from None
    ids = np.array(tokenizer.ids, np.int64)
    is_known = np.zeros(vocab_size, np.bool_)
    is_known[ids[ids < vocab_size]] = True
    is_known[end_ids] = True
    return Vocabulary(
        LLTokenizer(
            tokenizer.to_json(),
            n_vocab=max(vocab_size, int(ids.max()) + 1),
            eos_token=end_ids or None,
        ),
        vocab_size,
        np.packbits(is_known, bitorder="little"),
        tuple(end_ids),
    )


def compile_grammar(kind: str, guide: str, vocabulary: Vocabulary) -> Any:
    """Return a new matcher whose first mask is computed; other Python threads run meanwhile.

    Raises:
        ConfigError: the kind is unknown, or the grammar is malformed, allows no text, or has what
            llguidance can't keep.
    """
    stack_bytes = STACK_BYTES + STACK_BYTES_PER_CHARACTER * len(guide)
    try:
        matcher, fault = on_deep_stack(lambda: _compiled(kind, guide, vocabulary), stack_bytes)
    except ConfigError:
        raise
    except BaseException as error:
        fault = fault_of(error)
    if fault:
        raise ConfigError(f"the {kind} grammar is refused: {fault}")
    return matcher


def _compiled(kind: str, guide: str, vocabulary: Vocabulary) -> tuple[Any, str]:
    """Return a matcher, and what is wrong with it."""
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(
        max_items_in_row=MAX_ITEMS_IN_ROW, initial_lexer_fuel=LEXER_FUEL, verbose_errors=False
    )
    grammar = grammar_text(kind, guide)
    matcher = LLMatcher(vocabulary.tokenizer, grammar, log_level=0, limits=limits)
    if not matcher.is_error() and (warnings := matcher.get_grammar_warnings()):
        return matcher, reason_of(warnings[0])
    rule = GrammarGuide(matcher, vocabulary).rule()  # what fails at once is refused at once
    if matcher.is_error():
        return matcher, reason_of(matcher.get_error())
    return matcher, rule.reason if isinstance(rule, Broken) else ""
