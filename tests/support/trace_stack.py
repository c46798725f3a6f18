"""The front over the engine host in one process, with a model that thinks and answers as told."""

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from nemotrt.engines.opening import OpenEngine
from nemotrt.engines.runtime.engine import Feed, Limits
from nemotrt.engines.text.chat.template import ChatTemplate
from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.serve.engine.admission import QueueLimits
from nemotrt.serve.engine.host import EngineHost
from nemotrt.serve.front.app import FrontSpec, create_app
from nemotrt.serve.front.openai.engine_files import EngineFiles
from nemotrt.serve.front.upstream.engine_upstream import EngineUpstream
from nemotrt.serve.grammar.trial import GrammarTrial
from nemotrt.serve.processes.options import ChunkRate
from support.stand_in import StandInEngine

Json = dict[str, Any]


class ThinksAndAnswers(StandInEngine):
    """An engine that says `thought`, and `answer` once a closing tag is out, its own or a forced.

    Both are token ids. Without a trace in the thought it just says the thought.
    """

    def __init__(self, tokenizer: Tokenizer, thought: Sequence[int], answer: Sequence[int]) -> None:
        super().__init__(Limits(2, max_seq_len=2048, chunk_tokens=2048), vocab_size=4096)
        self._tokenizer = tokenizer
        self._thought, self._answer = list(thought), list(answer)
        self._said: dict[int, list[int]] = {}
        self.prompts: list[str] = []

    def release(self, slot: int) -> None:
        super().release(slot)
        self._said.pop(slot, None)

    def step(self, feeds: Sequence[Feed]) -> np.ndarray:
        logits = np.zeros((len(feeds), self.vocab_size), np.float32)
        for row, feed in zip(logits, feeds, strict=True):
            if feed.slot in self._said:
                self._said[feed.slot] += feed.tokens
            else:
                self._said[feed.slot] = []
                self.prompts.append(
                    self._tokenizer.decode(list(feed.tokens), skip_special_tokens=False)
                )
            row[self._next(self._said[feed.slot])] = 200.0  # no seed draws another
        return logits

    def _next(self, said: list[int]) -> int:
        for size in range(1, len(said) + 1):
            text = self._tokenizer.decode(said[:size], skip_special_tokens=False)
            _, tag, rest = text.partition("</think>")
            if tag and not rest.strip("\n") and self._answer:
                return self._at(self._answer, len(said) - size - self._gap(said[size:]))
        return self._at(self._thought, len(said))

    def _gap(self, said: list[int]) -> int:
        """Return how many of the first tokens are newlines: of the tag's format, not the answer."""
        texts = [self._tokenizer.decode([token]) for token in said]
        return next((i for i, text in enumerate(texts) if text.strip("\n")), len(texts))

    def _at(self, script: list[int], position: int) -> int:
        return script[position] if position < len(script) else self._tokenizer.eos_ids[0]


class Client:
    """Asks the front; `whole` and `streamed` give a chat's reasoning, content, reason, tokens."""

    def __init__(self, spec: FrontSpec) -> None:
        self._spec = spec

    def post(self, path: str, **body: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            upstream = EngineUpstream(self._spec.upstream._path)  # type: ignore[attr-defined]
            app = create_app(replace(self._spec, upstream=upstream))
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://front") as client:
                answer = await client.post(f"/v1/{path}", json={"model": "llm", **body})
            await upstream.close()
            return answer

        return asyncio.run(ask())

    def whole(self, **body: Any) -> tuple[str, str, str, int]:
        answer = self.post("chat/completions", **body)
        assert answer.status_code == 200, answer.text
        (choice,) = answer.json()["choices"]
        message = choice["message"]
        return (
            message.get("reasoning_content") or "",
            message["content"] or "",
            choice["finish_reason"],
            answer.json()["usage"]["completion_tokens"],
        )

    def streamed(self, **body: Any) -> tuple[str, str, str, int]:
        options = {"include_usage": True}
        answer = self.post("chat/completions", stream=True, stream_options=options, **body)
        assert answer.status_code == 200, answer.text
        reasoning = content = reason = ""
        count = 0
        for event in answer.text.split("\n\n"):
            data = event.removeprefix("data: ")
            if not data or data == "[DONE]":
                continue
            chunk = json.loads(data)
            assert "error" not in chunk, chunk
            count = (chunk.get("usage") or {}).get("completion_tokens", count)
            for choice in chunk["choices"]:
                reasoning += choice["delta"].get("reasoning_content") or ""
                content += choice["delta"].get("content") or ""
                reason = choice["finish_reason"] or reason
        return reasoning, content, reason, count


@cache
def _trial(tokenizer_json: str, vocab_size: int, end_ids: tuple[int, ...]) -> GrammarTrial:
    """One process that tries grammars, for every stack with that tokenizer."""
    return GrammarTrial(tokenizer_json, vocab_size, list(end_ids))


@contextmanager
def trace_stack(
    opened: OpenEngine, template: ChatTemplate, engine: ThinksAndAnswers, folder: Path
) -> Iterator[Client]:
    """Run `engine` with `template` behind the front."""
    scripted = replace(opened, engine=engine, template=template)
    host = EngineHost(scripted, QueueLimits(), ChunkRate.of(1e5, is_cpu=True, num_cores=1))
    listener = host.listen(folder / "socket")
    host.loop.start()
    threading.Thread(target=host._accept, args=(listener,), daemon=True).start()
    files = EngineFiles(opened.tokenizer, template, engine.limits)
    try:
        assert host._grammars is not None  # the engine has a tokenizer
        compiler = host._grammars
        compiler._trial = _trial(  # type: ignore[misc]
            compiler._tokenizer.to_json(), compiler._vocab_size, tuple(compiler._end_ids)
        )
        yield Client(FrontSpec("llm", files, EngineUpstream(folder / "socket")))
    finally:
        host.loop.stop(0)
        host.loop.join()
        listener.close()
