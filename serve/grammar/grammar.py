"""Grammars that mask logits: JSON, JSON schemas, regular expressions, Lark, through llguidance."""

import logging
from functools import cached_property
from typing import Any

from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.serve.grammar.cache import GrammarCache
from nemotrt.serve.grammar.compile import compile_grammar, grammar_vocabulary
from nemotrt.serve.grammar.guide import GrammarGuide, Vocabulary
from nemotrt.serve.grammar.trial import GrammarTrial
from nemotrt.serve.requests.limits import MAX_GUIDE_CHARACTERS, check_count

log = logging.getLogger("nemotrt.engine")


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
            self._trial.start()
        except Exception as error:  # a foreign library; requests with a grammar hear of it again
            log.warning("requests with a grammar will fail: %s", error)

    def has(self, kind: str, guide: str) -> bool:
        """Whether the grammar is compiled or refused already."""
        return self._cache.has(kind, guide)

    def guide(self, kind: str, guide: str) -> GrammarGuide:
        """Return a guide.

        Args:
            kind: json (any object), json_schema, regex, lark or ebnf_grammar.
            guide: the schema, expression or grammar; nothing for json.

        Raises:
            ConfigError: the kind is unknown, or the grammar is malformed or too large, allows no
                text, takes too long to compile, or has what llguidance can't keep.
            EnvironmentUnfitError: llguidance is not installed.
        """
        check_count("the grammar", len(guide), MAX_GUIDE_CHARACTERS, "characters")
        matcher = self._cache.matcher(kind, guide, lambda: self._matcher(kind, guide))
        return GrammarGuide(matcher, self._vocabulary)

    def _matcher(self, kind: str, guide: str) -> Any:
        """Return a new matcher of a grammar that has compiled elsewhere in good time."""
        vocabulary = self._vocabulary
        self._trial.check(kind, guide)
        return compile_grammar(kind, guide, vocabulary)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return grammar_vocabulary(self._tokenizer, self._vocab_size, self._end_ids)

    @cached_property
    def _trial(self) -> GrammarTrial:
        return GrammarTrial(self._tokenizer.to_json(), self._vocab_size, self._end_ids)
