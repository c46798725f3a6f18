"""A real lm-eval over the completions endpoint gives transformers' numbers on the tiny models.

Its tasks are local: a multiple choice of which some answers are right, and a perplexity over
documents longer than the model's window.
"""

import json
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.processes.launcher import serve_engine
from support import reference
from support.lm_tasks import write_task
from support.peers import peer_python

pytestmark = [pytest.mark.slow, pytest.mark.triton]

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/lm_eval.sh"
MAX_LENGTH = 120  # of the client's windows, so that the longer documents take several
QUESTIONS = [
    ("The Debian package", ["is the same", "is installed", "banana xylophone"]),
    ("このコマンドは", ["使えない", "system", "\U0001f600"]),
    ("def main", ["(self):", "potato", "return"]),
    ("What is", ["the name of", "not able", "the Data"]),
    ("In the", ["following example", "selected document", "Data tool"]),
]
DOCUMENTS = [
    "The engine reads a file and writes another one. " * 2,
    "A list of packages that the system installs: 使えない, naïve, \U0001f600. " * 14,
]
PERPLEXITIES = """
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
"""


class Oracle:
    """transformers' log-likelihoods of the same texts."""

    def __init__(self, folder: Path) -> None:
        self._model = reference.from_folder(folder)
        self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._bos = self._tokenizer.token_to_id("<s>")

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def score(self, ids: list[int], num_scored: int) -> tuple[float, bool]:
        """Return the last tokens' log-likelihood, and whether each is the likeliest."""
        rows = torch.tensor(reference.logits(self._model, ids), dtype=torch.float64)
        rows = torch.log_softmax(rows, -1)[:-1][-num_scored:]
        tokens = torch.tensor(ids[-num_scored:])
        found = rows[range(num_scored), tokens]
        return float(found.sum()), bool((found == rows.max(-1).values).all())

    def choice(self, question: str, answer: str) -> tuple[float, bool]:
        """As lm-eval cuts it: the answer's tokens are what the whole has more than the question."""
        whole = self.encode(f"{question} {answer}")
        return self.score(whole, len(whole) - len(self.encode(question)))

    def rolling(self, text: str) -> float:
        """Each token once, given as much as fits before it, in windows that do not overlap."""
        ids, size = self.encode(text), MAX_LENGTH - 2  # one for the context, one for the output
        total = self.score([self._bos, *ids[:size]], min(size, len(ids)))[0]
        for start in range(size, len(ids), size):
            end = min(start + size, len(ids))
            total += self.score(ids[end - size - 1 : end], end - start)[0]
        return total


@pytest.fixture(scope="module")
def lm_eval() -> Path:
    return peer_python("lm_eval").with_name("lm_eval")


@pytest.fixture(scope="module", params=["tiny", "tiny-dense"])
def run(
    request: pytest.FixtureRequest, lm_eval: Path, triton_runtime: None, tmp_path_factory: Any
) -> Iterator[tuple[Oracle, dict[str, Any], dict[str, list[Any]]]]:
    """Return the oracle, lm-eval's results, and its samples by task."""
    checkpoint = TINY_MODELS[request.param]
    folder = tmp_path_factory.mktemp("lm-eval")
    oracle = Oracle(checkpoint)
    _write_tasks(folder, oracle)
    build_engine(checkpoint, folder / "engine", BuildSpec(limits=Limits(8, 512, 32)))
    with serve_engine(folder / "engine", "--threads", "1", drain_s=5) as state:
        command = [str(EXAMPLE), str(state.openai_url), str(checkpoint), "tiny_choice,tiny_rolling"]
        command += ["--include_path", str(folder)]
        command += ["--log_samples", "--output_path", str(folder / "out")]
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
        found = {"PATH": f"{lm_eval.parent}:{os.environ['PATH']}", "MAX_LENGTH": str(MAX_LENGTH)}
        environment = os.environ | offline | found
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [results] = (folder / "out").rglob("results_*.json")
    samples = {
        task: [
            json.loads(line)
            for path in (folder / "out").rglob(f"samples_{task}_*")
            for line in path.read_text(encoding="utf-8").splitlines()
        ]
        for task in ("tiny_choice", "tiny_rolling")
    }
    yield oracle, json.loads(results.read_text(encoding="utf-8"))["results"], samples


def _write_tasks(folder: Path, oracle: Oracle) -> None:
    """Write the tasks and their data; every other question has an answer that is not likeliest."""
    rows = []
    for number, (question, choices) in enumerate(QUESTIONS):
        scores = [oracle.choice(question, choice)[0] for choice in choices]
        best = scores.index(max(scores))
        answer = best if number % 2 == 0 else (best + 1) % len(choices)
        rows.append({"question": question, "choices": choices, "answer": answer})
    _write_lines(folder / "choice.json", rows)
    _write_lines(folder / "rolling.json", [{"text": text} for text in DOCUMENTS])
    write_task(folder, "choice", "tiny")
    write_task(folder, "rolling", "tiny", PERPLEXITIES)


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(lines, encoding="utf-8")


def test_multiple_choice(run) -> None:
    """Log-likelihood and greediness of each answer; the accuracy is that of the answers given."""
    oracle, results, samples = run
    assert len(samples["tiny_choice"]) == len(QUESTIONS)
    has_greedy = False
    for sample in samples["tiny_choice"]:
        row = sample["doc"]
        for choice, [[logprob, is_greedy]] in zip(row["choices"], sample["resps"], strict=True):
            expected, greedy = oracle.choice(row["question"], choice)
            assert float(logprob) == pytest.approx(expected, abs=1e-3)
            assert str(is_greedy) == str(greedy)
            has_greedy |= greedy
    assert has_greedy, "no answer is what the model would say: is_greedy was never true"
    right = math.ceil(len(QUESTIONS) / 2)
    assert results["tiny_choice"]["acc,none"] == pytest.approx(right / len(QUESTIONS))


def test_rolling_perplexity(run) -> None:
    oracle, results, samples = run
    expected = [oracle.rolling(text) for text in DOCUMENTS]
    by_id = sorted(samples["tiny_rolling"], key=lambda sample: sample["doc_id"])
    found = [float(sample["resps"][0][0]) for sample in by_id]
    assert found == pytest.approx(expected, rel=1e-5)
    num_bytes = sum(len(text.encode()) for text in DOCUMENTS)
    bits = -sum(expected) / num_bytes / math.log(2)
    assert results["tiny_rolling"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-5)
    assert len(oracle.encode(DOCUMENTS[1])) > 2 * MAX_LENGTH, "one window shows nothing of rolling"
