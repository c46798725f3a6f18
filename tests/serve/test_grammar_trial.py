"""A grammar that takes too long to compile, or kills its compiler, costs nobody else a thing."""

import json

import pytest

from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.serve.grammar import trial as grammar_trial
from nemotrt.serve.grammar.grammar import GrammarCompiler
from support.cpu_time import cpu_seconds

SLOW = ("json_schema", json.dumps({"type": "integer", "multipleOf": 1_000_003}))
COLOURS = json.dumps({"enum": ["red", "blue"]})


@pytest.fixture(scope="module")
def grammars() -> GrammarCompiler:
    tokenizer = load_tokenizer(TINY_MODELS["tiny"])
    assert tokenizer is not None
    return GrammarCompiler(tokenizer, tokenizer.vocab_size, tokenizer.eos_ids)


def test_a_grammar_that_takes_too_long_is_refused(grammars) -> None:
    with pytest.raises(ConfigError, match="takes more than 2 s to compile"):
        grammars.guide(*SLOW)
    grammars.guide("json_schema", COLOURS)  # the next one has a process again

    def again() -> None:
        with pytest.raises(ConfigError, match="takes more than 2 s to compile"):
            grammars.guide(*SLOW)  # and this one is not tried again

    assert cpu_seconds(again) < 0.5


def test_terminals_that_double_are_refused(grammars) -> None:
    lines = [f'T{i}: T{i + 1} "x" T{i + 1}' for i in range(300)]
    lark = "\n".join(["start: T0", *lines, 'T300: "a"'])
    with pytest.raises(ConfigError, match="the lark grammar"):  # too long, or too large before
        grammars.guide("lark", lark)


def test_a_compiler_that_dies_costs_one_grammar(grammars) -> None:
    grammars.guide("json_schema", COLOURS)
    process = grammars._trial._process
    assert process is not None
    process.kill()
    process.wait()
    grammars.guide("regex", "(yes|no)")  # found dead before: started again
    process = grammars._trial._process
    assert process is not None and process.stdin is not None
    process.stdin.write('{"kind": 1}\n')  # it dies of this under the next grammar
    with pytest.raises(ConfigError, match="can't be compiled"):
        grammars.guide("regex", "(on|off)")
    grammars.guide("regex", "(up|down)")


def test_the_limit_is_told_once() -> None:
    from pathlib import Path

    docs = (Path(__file__).parents[2] / "docs/reference/http/structured.md").read_text("utf-8")
    assert f"{grammar_trial.MAX_COMPILE_S:g} s\n  of the processor's time to compile" in docs


def test_text_of_any_kind_reaches_the_compiler(grammars) -> None:
    for text in ("\u2028", "\n", "日本語", "\x00", '"'):
        grammars.guide("json_schema", json.dumps({"const": text}))
