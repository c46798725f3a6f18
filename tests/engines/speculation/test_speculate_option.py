"""`--speculate` at the doors: what it may say, which engines take it, that it changes nothing."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.backends import registry
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import OpenEngine, check_speculate, open_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.runtime.speculation.options import AUTO_GUESSES
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.llm import LLM
from nemotrt.serve.engine.host import main as host

LIMITS = Limits(max_batch_size=2, max_seq_len=160, chunk_tokens=32)
PROMPT = "The engine takes the token and the engine takes the state and the engine"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("e") / "native"
    spec = BuildSpec("native", precision=Precision.INT8_WO, limits=LIMITS)
    build_engine(TINY_MODELS["tiny"], target, spec)
    return target


def opened(folder: Path, word: str) -> OpenEngine:
    return open_engine(folder, OpenOptions(1, speculate=word), verify=False)


def test_the_same_answer_in_fewer_steps(folder: Path) -> None:
    found: dict[str, Any] = {}
    for word in ("off", "auto", "3"):
        command = ["generate", str(folder), PROMPT, "--json", "--logprobs", "2"]
        more = ["--max-tokens", "100", "--speculate", word]
        result = CliRunner().invoke(main, [*command, *more])
        assert result.exit_code == 0, result.output
        found[word] = json.loads(result.stdout)
    assert found["off"] == found["auto"] == found["3"]
    answers = {}
    for word in ("off", "auto"):
        with LLM(folder, options=OpenOptions(speculate=word)) as llm:
            answers[word] = llm.generate([PROMPT, "Once"])
    assert answers["off"] == answers["auto"]


@pytest.mark.parametrize(("word", "expected"), [("off", 0), ("auto", AUTO_GUESSES + 1), ("3", 4)])
def test_a_word_says_how_long_a_draft_may_be(folder: Path, word: str, expected: int) -> None:
    one = opened(folder, word)
    assert one.engine.max_draft == expected  # type: ignore[attr-defined]
    scheduler = one.scheduler()
    assert isinstance(scheduler, Scheduler)
    assert (scheduler.speculation is None) == (word == "off")
    one.engine.close()


def test_an_engine_of_one_token_chunks_guesses_nothing(tmp_path: Path) -> None:
    spec = BuildSpec("native", precision=Precision.INT8_WO, limits=Limits(1, 20, 1))
    build_engine(TINY_MODELS["tiny"], tmp_path / "e", spec)
    one = opened(tmp_path / "e", "auto")
    assert one.scheduler().speculation is None
    one.engine.close()


def test_a_number_is_refused_by_name_where_no_guesses_are_taken(tmp_path: Path) -> None:
    build_engine(TINY_MODELS["tiny"], tmp_path / "e", BuildSpec("onnxruntime", limits=LIMITS))
    reason = "--speculate 3 is for engines of native; this engine is onnxruntime's"
    with pytest.raises(ConfigError, match=reason):
        opened(tmp_path / "e", "3")
    result = CliRunner().invoke(
        main, ["generate", str(tmp_path / "e"), "--prompt-ids", "5", "--speculate", "3"]
    )
    assert result.exit_code == 2 and reason in result.stderr
    for word in ("auto", "off"):
        one = opened(tmp_path / "e", word)
        assert one.scheduler().speculation is None
        one.engine.close()


@pytest.mark.parametrize("backend", registry.backends(), ids=lambda backend: backend.name)
def test_each_backend_takes_a_number_or_refuses_it(backend: Any) -> None:
    class Manifest:
        def __init__(self) -> None:
            self.backend = backend.name

    manifest: Any = Manifest()
    check_speculate(manifest, "auto")
    if backend.takes_drafts:
        check_speculate(manifest, "4")
    else:
        with pytest.raises(ConfigError, match=f"this engine is {backend.name}'s"):
            check_speculate(manifest, "4")


@pytest.mark.parametrize("word", ["on", "0", "33", "-2"])
def test_other_words_are_refused(folder: Path, word: str) -> None:
    result = CliRunner().invoke(main, ["generate", str(folder), "x", "--speculate", word])
    assert result.exit_code == 2 and "auto, off and 1 to 32" in result.stderr


def test_a_server_guesses_by_its_own_option(tmp_path: Path) -> None:
    command = ["profile", "run", "http://127.0.0.1:9/v1", "-o", str(tmp_path / "r")]
    more = ["--tokenizer", "tiny", "--isl", "4", "--osl", "2", "-n", "1", "--no-gpu"]
    result = CliRunner().invoke(main, [*command, *more, "--speculate", "off"])
    assert result.exit_code == 2 and "--speculate is for an engine directory" in result.stderr


def commands(command: click.Command) -> list[click.Command]:
    if not isinstance(command, click.Group):
        return [command]
    with click.Context(command) as ctx:
        names = command.list_commands(ctx)
        return [leaf for name in names for leaf in commands(command.get_command(ctx, name))]  # type: ignore[arg-type]


def test_every_command_that_runs_an_engine_has_it() -> None:
    for command in (*commands(main), host):
        options = {option for param in command.params for option in param.opts}
        if "--tensorrt-llm-python" in options:
            assert "--speculate" in options, command.name
