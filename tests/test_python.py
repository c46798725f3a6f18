"""The Python surface: light to import, the same names whatever came before, and what it says."""

import doctest
import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import nemotrt
from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.runtime.request import FinishReason
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.llm import LLM
from support import reference
from test_cli import SLOW

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/reference/python.md"
PROMPTS = ["The Debian package", "このコマンドは", "def main", "日本"]


@pytest.fixture(scope="module")
def llm(tiny_engine: Path) -> Iterator[LLM]:
    with LLM(tiny_engine) as opened:
        yield opened


def test_thinking_is_for_messages(llm: LLM) -> None:
    """A switch of the chat template has no effect on a text that is continued."""
    for call in (llm.settings, lambda text, **more: list(llm.stream(text, **more))):
        for thinking in (True, False):
            with pytest.raises(ConfigError, match="thinking is for messages"):
                call("The server", thinking=thinking)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_it_imports_next_to_nothing() -> None:
    heavy = (*SLOW, "click", "rich", "prompt_toolkit")
    code = f"import sys, nemotrt; print(*[name for name in {heavy!r} if name in sys.modules])"
    assert python(code) == ""
    assert python(code.replace("nemotrt;", "nemotrt; nemotrt.__version__;")) == ""


def test_every_name_is_there_and_no_other() -> None:
    assert set(nemotrt.__all__) <= set(dir(nemotrt))
    for name in nemotrt.__all__:
        found = getattr(nemotrt, name)
        assert callable(found) or isinstance(found, str)
        assert isinstance(found, str) or found.__doc__
    with pytest.raises(AttributeError, match="no attribute 'LLLM'"):
        _ = nemotrt.LLLM  # type: ignore[attr-defined]
    from importlib.metadata import version

    assert nemotrt.__version__ == version("nemotrt")


@pytest.mark.parametrize("first", ["", "import nemotrt.quantize.command", "import nemotrt.llm"])
def test_names_mean_the_same_whatever_was_imported_before(first: str) -> None:
    """`nemotrt.quantize` is a folder too."""
    call = "quantize('tiny', 'q', 'no-such-recipe')"
    code = (
        f"{first}\nfrom nemotrt import quantize\nimport nemotrt\n"
        "assert nemotrt.quantize is quantize\n"
        f"try: {call}\nexcept nemotrt.errors.ConfigError as error: print(error.message)"
    )
    assert "no-such-recipe" in python(code)


def test_plan_is_the_command_s() -> None:
    from click.testing import CliRunner

    from nemotrt.cli import main

    words = ["plan", "nemotron-nano-9b-v2", "--gpu", "a10g", "--isl", "1024", "--osl", "256"]
    told = json.loads(CliRunner().invoke(main, [*words, "--precision", "int8-wo", "--json"]).stdout)
    found = nemotrt.plan("nemotron-nano-9b-v2", "a10g", isl=1024, osl=256, precision="int8-wo")
    assert found.max_batch_size == told["max_batch_size"]
    assert found.tokens_per_s.best == told["tokens_per_s"]["best"]
    with pytest.raises(ConfigError, match="did you mean 'fp8'"):
        nemotrt.plan("nemotron-nano-9b-v2", "h100", precision="fp9")


def test_quantize_and_run_it(tmp_path: Path) -> None:
    result = nemotrt.quantize("tiny", tmp_path / "q", gpu="a10g")
    assert (result.num_linears, result.quant_algo) == (24, "W8A16")
    with pytest.raises(ConfigError, match="exists"):
        nemotrt.quantize("tiny", tmp_path / "q", "int8-wo")
    with LLM(tmp_path / "q", quiet=True) as llm:
        assert llm.facts["precision"] == "int8-wo"
        assert llm.generate("The", nemotrt.SamplingParams(max_tokens=2)).tokens


@pytest.mark.slow
def test_quantize_with_a_calibration(tmp_path: Path) -> None:
    target, folder = tmp_path / "q", tmp_path / "c"
    assert nemotrt.quantize("tiny", target, "int8-sq", calibration=folder).num_linears == 24
    assert folder.is_dir()


def test_greedy_texts_together_and_alone_are_transformers(llm: LLM) -> None:
    model, folder = reference.load(TINY_MODELS["tiny"]), TINY_MODELS["tiny"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    params = nemotrt.SamplingParams(max_tokens=12, logprobs=0)
    many = llm.generate(PROMPTS, params)
    for prompt, answer in zip(PROMPTS, many, strict=True):
        assert llm.generate(prompt, params).text == answer.text
        ids, tokens = tokenizer.encode(prompt), [token.id for token in answer.tokens]
        logits = reference.logits(model, ids + tokens)[len(ids) - 1 : -1]
        assert tokens == logits.argmax(-1).tolist()
        logprobs = torch.log_softmax(torch.from_numpy(logits), -1).amax(-1)
        assert [token.logprob for token in answer.tokens] == pytest.approx(logprobs, abs=1e-4)
        assert answer.num_prompt_tokens == len(ids)
    assert llm.generate([]) == []


def test_a_chat_is_the_rendered_template(llm: LLM) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY_MODELS["tiny"])
    messages = [
        {"role": "system", "content": "/no_think"},
        {"role": "user", "content": "What is a file system?"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    params = nemotrt.SamplingParams(max_tokens=12)
    answer = llm.chat(messages, params)
    assert answer.num_prompt_tokens == len(tokenizer.encode(text, add_special_tokens=False))
    assert llm.chat("What is a file system?", params, thinking=False).text == answer.text
    assert llm.settings(messages).temperature == 0
    assert llm.settings(messages[1:], thinking=True).temperature == 0.6
    assert llm.settings(messages).max_tokens == 512 - answer.num_prompt_tokens
    with pytest.raises(ConfigError, match="but a message says /no_think"):
        llm.chat("What? /no_think", params, thinking=True)


@settings(max_examples=8)
@given(st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=4), st.data())
def test_streams_may_be_read_in_any_order_and_left(
    llm: LLM, prompts: list[str], data: st.DataObject
) -> None:
    """Pieces make the answer; what is left behind disturbs nobody and holds no slot."""
    params = nemotrt.SamplingParams(max_tokens=8)
    streams = {i: llm.stream(prompt, params) for i, prompt in enumerate(prompts)}
    texts = dict.fromkeys(streams, "")
    while streams:
        index = data.draw(st.sampled_from(sorted(streams)))
        if data.draw(st.integers(0, 9)) == 0:
            streams.pop(index).close()  # type: ignore[attr-defined]
            continue
        piece = next(streams[index])
        texts[index] += piece.text
        if piece.answer:
            assert texts[index] == piece.answer.text == llm.generate(prompts[index], params).text
            del streams[index]
    llm.generate("The", nemotrt.SamplingParams(max_tokens=1))
    assert llm._live.inboxes == {} and llm._live.scheduler.is_idle


def test_a_stream_that_is_forgotten_ends(llm: LLM) -> None:
    stream = llm.stream("The", nemotrt.SamplingParams(max_tokens=400, ignore_eos=True))
    next(stream)
    del stream
    gc.collect()
    llm.generate("The", nemotrt.SamplingParams(max_tokens=1))
    assert llm._live.scheduler.is_idle


def test_a_prompt_that_does_not_fit_leaves_the_others_and_itself_nowhere(llm: LLM) -> None:
    with pytest.raises(ConfigError, match="the engine holds 512"):
        llm.generate(["The", "word " * 600, "The"])
    assert llm._live.inboxes == {}
    assert llm.generate("The", nemotrt.SamplingParams(max_tokens=3)).finish_reason == "length"


def test_ctrl_c_ends_what_runs_and_the_engine_goes_on(
    llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes within a step, which is where nearly all of the time goes."""
    params = nemotrt.SamplingParams(max_tokens=16)
    before = llm.generate("The Debian package", params).text
    step, count = llm._live.scheduler.step, 0

    def stepping() -> Any:
        nonlocal count
        count += 1
        if count == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return step()

    monkeypatch.setattr(llm._live.scheduler, "step", stepping)
    with pytest.raises(KeyboardInterrupt):
        llm.generate(PROMPTS, params)
    assert llm.generate("The Debian package", params).text == before
    assert llm._live.inboxes == {} and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_was_said_is_not_computed_again(llm: LLM) -> None:
    turns = [{"role": "user", "content": "Say it. " * 30}]
    params = nemotrt.SamplingParams(max_tokens=4)
    first = llm.chat(turns, params)
    turns += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "Again."}]
    again = llm.chat(turns, params)
    assert first.cached_tokens == 0 and (again.cached_tokens or 0) > 100


def test_a_budget_ends_reasoning(llm: LLM) -> None:
    params = nemotrt.SamplingParams(max_tokens=60)
    free = llm.chat("What is a file?", params, thinking=True)
    short = llm.chat("What is a file?", params, thinking=True, max_thinking_tokens=0)
    assert free.reasoning and len(short.reasoning) < len(free.reasoning)
    assert free.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)


def test_what_is_no_engine_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'nowhere' is not a folder"):
        LLM("nowhere")
    with pytest.raises(ArtefactError, match="is not an engine directory"):
        LLM(tmp_path)


def test_it_says_what_it_builds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with LLM("tiny-dense", rebuild=True) as llm:
        assert read_manifest(llm.folder).model["model_type"] == llm.facts["model"].split()[0]
    assert f"building {llm.folder}" in capfd.readouterr().err
    LLM("tiny-dense", quiet=True).close()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("page", [PAGE, ROOT / "__init__.py"], ids=lambda path: path.name)
def test_what_the_documentation_shows_is_what_comes(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert found.attempted >= 2 and found.failed == 0
