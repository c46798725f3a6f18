"""Each example runs as its first lines say; examples/lm_eval.sh in tests/serve/test_lm_eval.py."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotrt.llm import LLM, SamplingParams
from nemotrt.serve.processes.launcher import serve_engine

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
RUN = {"agent_ja.py", "extraction.py", "batch.py"}


def run(name: str, *words: str) -> str:
    command = [sys.executable, str(EXAMPLES / name), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The hybrid, as `nemotrt serve tiny` serves it."""
    with LLM("tiny", quiet=True) as llm:
        engine = llm.folder
    with serve_engine(engine, "--no-triton", "--threads", "1", drain_s=5) as state:
        yield str(state.openai_url)


def test_every_example_is_run() -> None:
    assert {path.name for path in EXAMPLES.glob("*.*")} == RUN | {"lm_eval.sh"}


def test_an_agent_calls_its_tools_in_japanese(address: str) -> None:
    told = run("agent_ja.py", address, "--must-call")
    called = [line for line in told.splitlines() if line.startswith("[")]
    assert called and any(name in called[0] for name in ("[timetable {", "[today {"))
    assert "->" in called[0] and "\\u" not in called[0]


def test_an_extraction_fits_its_schema(address: str) -> None:
    found = json.loads(run("extraction.py", address))
    assert set(found) == {"company", "date", "currency", "amount", "is_paid"}
    assert found["currency"] in ("JPY", "USD", "EUR") and isinstance(found["amount"], int)


def test_a_batch_has_the_texts_of_its_prompts(tmp_path: Path) -> None:
    prompts = ["The Debian package", "このコマンドは", "def main"] * 4  # more than there are slots
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [json.dumps({"id": i, "prompt": text}) for i, text in enumerate(prompts)]
    source.write_text("\n".join(lines))
    run("batch.py", "tiny", str(source), str(target))
    found = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in found] == list(range(len(prompts)))
    with LLM("tiny", quiet=True) as llm:
        alone = {text: llm.generate(text, SamplingParams(max_tokens=64)).text for text in prompts}
    assert [line["text"] for line in found] == [alone[text] for text in prompts]
