"""A served tiny model beside transformers' own, and how the two are compared."""

import json
from typing import Any

import httpx
import numpy as np
import pytest
import tokenizers
import torch

from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.processes.run_folder import ServerState
from support import reference

LIMITS = Limits(max_batch_size=8, max_seq_len=256, chunk_tokens=16)
PROMPTS = ["The Debian package manager", "このコマンドは使えない。", "x", "naïve 😀 text\n\n  end"]
Json = dict[str, Any]


class Served:
    """A server over a tiny model, and what transformers and tokenizers say of the same folder."""

    def __init__(self, name: str, state: ServerState) -> None:
        folder = TINY_MODELS[name]
        self.state = state
        self.url = state.openai_url
        self.model = reference.from_folder(folder)
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))

    def post(self, path: str, **body: Any) -> Json:
        answer = httpx.post(f"{self.url}/{path}", json={"model": "llm", **body}, timeout=60)
        assert answer.status_code == 200, answer.text
        result: Json = answer.json()
        return result

    def refusal(self, path: str, **body: Any) -> str:
        answer = httpx.post(f"{self.url}/{path}", json={"model": "llm", **body}, timeout=60)
        assert answer.status_code == 400, answer.text
        return str(answer.json()["error"]["message"])

    def stream(self, path: str, **body: Any) -> list[Json]:
        body |= {"model": "llm", "stream": True}
        chunks = []
        with httpx.stream("POST", f"{self.url}/{path}", json=body, timeout=60) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    chunks.append(json.loads(line.removeprefix("data: ")))
        return chunks

    def log_softmax(self, ids: list[int]) -> np.ndarray:
        """Row i is the distribution after ids[i]."""
        rows = torch.tensor(reference.logits(self.model, ids), dtype=torch.float64)
        return torch.log_softmax(rows, -1).numpy()


def check_by_id(served: Served, ids: list[int], found: list[Json | None], num_top: int) -> None:
    assert found[0] is None and len(found) == len(ids)
    expected = served.log_softmax(ids)
    for token, entry, row in zip(ids[1:], found[1:], expected[:-1], strict=True):
        assert entry is not None and num_top <= len(entry) <= num_top + 1
        assert str(token) in entry
        for name, item in entry.items():
            assert set(item) == {"logprob", "rank", "decoded_token"}
            assert item["logprob"] == pytest.approx(row[int(name)], abs=1e-4)
            assert np.sort(row)[-item["rank"]] == pytest.approx(row[int(name)], abs=1e-4)
