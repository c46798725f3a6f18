"""lm-eval in this process: transformers' log-likelihoods, paired intervals, cures."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import torch
from click.testing import CliRunner

from nemotrt.cli import main
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.quality.tasks.opened_model import opened_model
from nemotrt.quantize.quality.tasks.paired import interval
from nemotrt.quantize.recipes.recipe import load_recipe
from nemotrt.quantize.writing.writer import quantize_checkpoint
from support.lm_tasks import write_task
from support.reference import from_folder

TINY = TINY_MODELS["tiny"]
QUESTIONS = [
    ("The Debian package", ["is the same", "is installed", "banana xylophone"]),
    ("このコマンドは", ["使えない", "system", "データ"]),
    ("def main", ["(self):", "potato", "return"]),
    ("What is", ["the name of", "not able", "the Data"]),
]


class Oracle:
    """transformers' figures of the same texts."""

    def __init__(self) -> None:
        self.model = from_folder(TINY)
        self.tokenizer = tokenizers.Tokenizer.from_file(str(TINY / "tokenizer.json"))

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def log_probs(self, ids: list[int]) -> torch.Tensor:
        with torch.no_grad():
            logits = self.model(torch.tensor([ids]), use_cache=False).logits[0].double()
        return torch.log_softmax(logits, -1)

    def score(self, context: list[int], ids: list[int]) -> float:
        whole = [*context, *ids]
        rows = self.log_probs(whole)[len(context) - 1 : -1]
        return float(rows[range(len(ids)), torch.tensor(ids)].sum())

    def greedy(self, text: str, count: int) -> str:
        ids, found = self.encode(text), []
        for _ in range(count):
            found.append(int(self.log_probs([*ids, *found])[-1].argmax()))
        return self.tokenizer.decode(found).partition("\n")[0]


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def write(folder: Path, oracle: Oracle, sample: str = "false") -> Path:
    """Write the tasks; the right answer is transformers' first, or the one after it."""
    rows = []
    for number, (question, choices) in enumerate(QUESTIONS * 3):
        context = oracle.encode(question)
        scores = []
        for choice in choices:
            whole = oracle.encode(f"{question} {choice}")
            scores.append(oracle.score(context, whole[len(context) :]))
        best = int(np.argmax(scores))
        right = best if number % 3 else (best + 1) % 3
        rows.append({"question": question, "choices": choices, "answer": right})
    answers = [
        {"question": question, "answer": oracle.greedy(question, 6)} for question, _ in QUESTIONS
    ]
    texts = [{"text": "A list of packages that the system installs. " * 3}]
    for name, lines in {"choice": rows, "answer": answers, "rolling": texts}.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    how = f'{{until: ["\\n"], max_gen_toks: 6, do_sample: {sample}, temperature: 0.7}}'
    for name in ("choice", "answer", "rolling"):
        more = f"generation_kwargs: {how}\n" if name == "answer" else ""
        write_task(folder, name, "local", more)
    return folder


def run(*arguments: object, candidate: object = "tiny") -> tuple[int, str, str]:
    command = ["evaluate", str(candidate), "--against", "tiny", *map(str, arguments)]
    result = CliRunner().invoke(main, command)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.slow
def test_scores_are_transformers(tmp_path: Path, oracle: Oracle, offline: None) -> None:
    folder = write(tmp_path, oracle)
    names = "local_choice,local_answer,local_rolling"
    code, out, errors = run("--tasks", names, "--task-folder", folder, "--json")
    assert code == 0, errors
    scores = {(item["task"], item["metric"]): item for item in json.loads(out)["tasks"]}
    choice = scores["local_choice", "acc"]
    assert choice["reference"] == choice["candidate"] == pytest.approx(8 / 12)
    assert choice["num_items"] == 12
    assert choice["interval"] == {"difference": 0.0, "low": 0.0, "high": 0.0}
    assert scores["local_answer", "exact_match"]["candidate"] == 1.0
    ids = oracle.encode("A list of packages that the system installs. " * 3)
    loss = -oracle.score([oracle.tokenizer.token_to_id("<s>")], ids) / np.log(2)
    expected = loss / len(b"A list of packages that the system installs. " * 3)
    rolling = scores["local_rolling", "bits_per_byte"]
    assert rolling["reference"] == pytest.approx(expected, rel=1e-3)
    assert rolling["interval"] is None


@pytest.mark.slow
def test_a_quantized_model_is_paired(tmp_path: Path, oracle: Oracle, offline: None) -> None:
    quantize_checkpoint(TINY, tmp_path / "q", load_recipe("int4-wo"))
    folder = write(tmp_path, oracle)
    asked = ["--tasks", "local_choice", "--task-folder", folder, "--task-limit", 6]
    code, out, errors = run(*asked, candidate=tmp_path / "q")
    assert code == 0, errors
    [line] = [line for line in out.splitlines() if line.startswith("local_choice")]
    assert "acc" in line and "(" in line and line.split()[2] == "6"


@pytest.mark.slow
def test_what_cannot_be_asked_is_refused(tmp_path: Path, oracle: Oracle, offline: None) -> None:
    folder = write(tmp_path, oracle, sample="true")
    code, _, errors = run("--tasks", "local_choise", "--task-folder", folder)
    assert code == 2 and "near: " in errors and "local_choice" in errors
    code, _, errors = run("--tasks", "local_answer", "--task-folder", folder)
    assert code == 2 and "answers greedily" in errors
    code, _, errors = run("--tasks", "arc_easy", "--task-limit", 1)
    assert code == 3 and "--task-folder" in errors and "HF_HOME" in errors
    code, _, errors = run("--tasks", "x", "--sequences", 3)
    assert code == 2 and "--sequences: of texts" in errors
    code, _, errors = run("--shots", 3)
    assert code == 2 and "go with --tasks" in errors


def test_an_interval_by_hand() -> None:
    """Differences 1, 0, 0, 1: mean 1/2, deviation 0.577, of four items."""
    found = interval([(0, 1), (1, 1), (0, 0), (0, 1)])
    assert found is not None and found.difference == 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * 0.5774 / 2, rel=1e-3)
    assert interval([(0, 1)]) is None and interval([((1, 2), 1), (1, 1)]) is None


@pytest.mark.parametrize("recipe", ["int8-dynamic", "fp8-dynamic"])
def test_a_checkpoint_that_rounds_activations_is_refused(recipe: str, tmp_path: Path) -> None:
    """The native engine keeps them: the scores would be another model's."""
    quantize_checkpoint(TINY, tmp_path / "q", load_recipe(recipe), QuantizeOptions())
    with pytest.raises(ConfigError, match="rounds activations"), opened_model(tmp_path / "q"):
        pass
