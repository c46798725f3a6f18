"""`nemotrt generate`, with transformers as the judge of what it says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from transformers import AutoTokenizer

from nemotrt.cli import main
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.tiny.models import TINY_MODELS
from support import reference

FOLDER = TINY_MODELS["tiny"]


def run(engine: Path, *arguments: Any, **options: Any) -> Result:
    command = ["generate", str(engine), *map(str, arguments), "--threads", "1"]
    return CliRunner().invoke(main, command, **options)


@pytest.fixture(scope="module")
def model() -> Any:
    return reference.load(FOLDER)


@pytest.mark.parametrize("option", ["--logprobs", "--prompt-logprobs"])
@pytest.mark.parametrize("extra", [[], ["--stream"]])
def test_logprobs_without_json_are_refused(
    tiny_engine: Path, option: str, extra: list[str]
) -> None:
    result = run(tiny_engine, "The", option, 2, *extra)
    assert result.exit_code == 2 and f"{option} needs --json" in result.stderr


def test_prompt_logprobs_are_transformers(tiny_engine: Path, model: Any) -> None:
    arguments = ["--max-tokens", 1, "--json", "--prompt-logprobs", 2]
    found = json.loads(run(tiny_engine, "The Debian package", *arguments).stdout)["prompt"]
    ids = AutoTokenizer.from_pretrained(FOLDER).encode("The Debian package")
    rows = torch.log_softmax(torch.from_numpy(reference.logits(model, ids)), -1).numpy()
    assert [token["id"] for token in found] == ids and set(found[0]) == {"id"}
    for token, row in zip(found[1:], rows, strict=False):
        assert token["logprob"] == pytest.approx(row[token["id"]], abs=1e-4)
        assert [top["id"] for top in token["top_logprobs"]] == np.argsort(-row)[:2].tolist()


@pytest.mark.parametrize("prompt", ["The Debian package", "このコマンドは"])
def test_greedy_text_and_logprobs_are_transformers(
    tiny_engine: Path, model: Any, prompt: str
) -> None:
    found = json.loads(
        run(tiny_engine, prompt, "--max-tokens", 24, "--json", "--logprobs", 3).stdout
    )
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    ids = tokenizer.encode(prompt)
    tokens = [token["id"] for token in found["tokens"]]
    logits = reference.logits(model, ids + tokens)[len(ids) - 1 : -1]
    logprobs = torch.log_softmax(torch.from_numpy(logits), -1).numpy()
    assert tokens == logits.argmax(-1).tolist()
    for token, row in zip(found["tokens"], logprobs, strict=True):
        assert token["logprob"] == pytest.approx(row[token["id"]], abs=1e-4)
        assert [top["id"] for top in token["top_logprobs"]] == np.argsort(-row)[:3].tolist()
    assert found["text"] == tokenizer.decode(tokens, skip_special_tokens=True).rstrip("\ufffd")
    assert found["text"].startswith("".join(token["text"] for token in found["tokens"]))
    assert found["finish_reason"] in ("length", "stop")
    assert found["usage"] == {
        "prompt_tokens": len(ids),
        "completion_tokens": len(tokens),
        "total_tokens": len(ids) + len(tokens),
    }


def test_streaming_prints_the_same_text(tiny_engine: Path) -> None:
    whole = run(tiny_engine, "日本", "--max-tokens", 30)
    streamed = run(tiny_engine, "日本", "--max-tokens", 30, "--stream")
    assert whole.exit_code == streamed.exit_code == 0
    assert streamed.stdout == whole.stdout
    assert "\ufffd" not in streamed.stdout


def test_prompt_ids_and_stdin_are_the_same_prompt(tiny_engine: Path) -> None:
    ids = AutoTokenizer.from_pretrained(FOLDER).encode("Debian is")
    arguments = ["--max-tokens", 12]
    expected = run(tiny_engine, "Debian is", *arguments).stdout
    assert run(tiny_engine, "--prompt-ids", ",".join(map(str, ids)), *arguments).stdout == expected
    assert run(tiny_engine, "-", *arguments, input="Debian is").stdout == expected


def test_a_seed_repeats(tiny_engine: Path) -> None:
    arguments = ["The", "--max-tokens", 16, "--temperature", 1.0, "--seed"]
    assert run(tiny_engine, *arguments, 1).stdout == run(tiny_engine, *arguments, 1).stdout
    assert run(tiny_engine, *arguments, 1).stdout != run(tiny_engine, *arguments, 2).stdout


def test_a_bias_forces_or_bans_a_token(tiny_engine: Path) -> None:
    def tokens(*options: Any) -> list[int]:
        found = json.loads(run(tiny_engine, "The", "--max-tokens", 8, "--json", *options).stdout)
        return [token["id"] for token in found["tokens"]]

    greedy = tokens()
    assert tokens("--logit-bias", "700=100") == [700] * 8
    drawn = ["--temperature", 2, "--seed", 3]
    assert tokens("--logit-bias", "700=60", "--logit-bias", "700=40", *drawn) == [700] * 8
    assert greedy[0] not in tokens("--logit-bias", f"{greedy[0]}=-100")
    assert tokens("--logit-bias", "700=0", "--min-p", 0) == greedy
    assert tokens("--min-p", 1, *drawn) == greedy != tokens(*drawn)


def test_chat_is_the_rendered_template(tiny_engine: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    messages = [
        {"role": "system", "content": "/no_think"},
        {"role": "user", "content": "What is a file system?"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer.encode(text, add_special_tokens=False)
    arguments = ["--max-tokens", 12, "--json"]
    found = run(
        tiny_engine, "What is a file system?", "--chat", "--system", "/no_think", *arguments
    )
    expected = run(tiny_engine, "--prompt-ids", ",".join(map(str, ids)), *arguments)
    assert json.loads(found.stdout) == json.loads(expected.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a PROMPT or --prompt-ids"),
        (["x", "--prompt-ids", "1"], "one of them"),
        (["--prompt-ids", "1,x"], "not a list like"),
        (["--prompt-ids", "1,99999"], "prompt ids must be"),
        (["--prompt-ids", "1", "--chat"], "--chat needs a PROMPT"),
        (["x", "--system", "y"], "goes with --chat"),
        (["x", "--stream", "--json"], "exclude each other"),
        (["x", "--max-tokens", "600"], "the engine holds 512"),
        (["x", "--temperature", "-1"], "temperature must be"),
        (["x", "--top-p", "2"], "top_p must be"),
        (["x", "--min-p", "1.5"], "min_p must be 0 to 1, got 1.5"),
        (["x", "--min-p", "-0.1"], "min_p must be 0 to 1, got -0.1"),
        (["x", "--min-p", "nan"], "min_p must be 0 to 1, got nan"),
        (["x", "--presence-penalty", "3"], "presence_penalty must be -2 to 2"),
        (["x", "--logit-bias", "5"], "'5' is not a token id and a number, like 42=-5.5"),
        (["x", "--logit-bias", "=1"], "is not a token id and a number"),
        (["x", "--logit-bias", "-1=1"], "is not a token id and a number"),
        (["x", "--logit-bias", "+1=1"], "is not a token id and a number"),
        (["x", "--logit-bias", "1_0=1"], "is not a token id and a number"),
        (["x", "--logit-bias", "5="], "is not a token id and a number"),
        (["x", "--logit-bias", "5=x"], "is not a token id and a number"),
        (["x", "--logit-bias", "5=1=2"], "is not a token id and a number"),
        (["x", "--logit-bias", "5=nan"], "is not a token id and a number"),
        (["x", "--logit-bias", "5=inf"], "is not a token id and a number"),
        (["x", "--logit-bias", "99999=1"], "logit_bias ids must be 0 to 4095"),
        (["x", *["--logit-bias", "5=1"] * 1025], "logit_bias takes at most 1024 tokens"),
    ],
)
def test_bad_arguments(tiny_engine: Path, arguments: list[str], message: str) -> None:
    result = run(tiny_engine, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_what_is_no_engine(tmp_path: Path) -> None:
    result = run(tmp_path, "x")
    assert result.exit_code == 1
    assert "no engine.json" in result.stderr


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("options", [[], ["--json", "--logprobs", 1], ["--stream"]])
def test_logits_that_are_not_finite_fail_the_command(
    tiny_engine: Path, monkeypatch: pytest.MonkeyPatch, bad: float, options: list[Any]
) -> None:
    from nemotrt.engines.backends.onnxruntime.engine import OnnxRuntimeEngine

    step = OnnxRuntimeEngine.step

    def spoiled(self: Any, feeds: Any) -> Any:
        logits = np.array(step(self, feeds))
        logits[:, 3] = bad
        return logits

    monkeypatch.setattr(OnnxRuntimeEngine, "step", spoiled)
    found = run(tiny_engine, "The", "--max-tokens", 4, *options)
    assert found.exit_code == 1
    assert "the engine's logits are not finite" in found.stderr
    assert "NaN" not in found.stdout and "Infinity" not in found.stdout


def test_a_stop_string_of_a_chat_ends_the_answer_not_the_trace(tiny_engine: Path) -> None:
    """The trace is told by the prompt, in whatever form that comes."""
    from nemotrt.engines.opening import open_engine
    from nemotrt.engines.prompt import GivenPrompt, prepare
    from nemotrt.engines.text.reasoning import Trace

    opened = open_engine(tiny_engine, OpenOptions(1))
    prepared = prepare(opened, GivenPrompt("Hi", is_chat=True))
    assert prepared.trace is Trace.OPEN and prepared.defaults["temperature"] == 0.6
    ids = prepare(opened, GivenPrompt(None, ids=",".join(map(str, prepared.ids))))
    assert (ids.trace, ids.ids) == (Trace.OPEN, prepared.ids)
    assert ids.defaults["temperature"] == 0
    quiet = prepare(opened, GivenPrompt("Hi", is_chat=True, system="/no_think"))
    assert quiet.trace is Trace.ENDED and quiet.defaults["temperature"] == 0
    assert prepare(opened, GivenPrompt("Once")).trace is Trace.BEFORE
    opened.engine.close()
    options = ["--chat", "--temperature", 0, "--max-tokens", 40, "--json"]
    free = json.loads(run(tiny_engine, "Hi", *options).stdout)
    thought, tag, _ = free["text"].partition("</think>")
    stop = thought.strip()[:3] if tag else free["text"].strip()[:3]
    found = json.loads(run(tiny_engine, "Hi", *options, "--stop", stop).stdout)
    assert found["text"].startswith(thought if tag else free["text"])
