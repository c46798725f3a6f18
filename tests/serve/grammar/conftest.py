"""A tokenizer, and its compiler of grammars."""

import pytest

from nemotrt.engines.text.tokenizer import Tokenizer, load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.grammar.grammar import GrammarCompiler
from support.flat_engine import PADDING


@pytest.fixture(scope="package")
def tokenizer() -> Tokenizer:
    tokenizer = load_tokenizer(TINY_MODELS["tiny-dense"])
    assert tokenizer is not None
    return tokenizer


@pytest.fixture(scope="package")
def grammars(tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, tokenizer.vocab_size + PADDING, tokenizer.eos_ids)
