"""An engine process whose model says what the prompt tells it to: SAY[[text]].

It speaks the real protocol through the real engine host and scheduler; only the model is scripted.
A thinking budget's forced tag is obeyed: the answer after the script's own tag follows it.
"""

import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nemotrt.engines import opening
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.runtime.engine import Feed, Limits, step_by_rows
from nemotrt.engines.text.tokenizer import Tokenizer
from nemotrt.serve.engine import host as engine_host
from support.stand_in import StandInEngine

SAY = re.compile(r"SAY\[\[(.*?)\]\]SAY", re.DOTALL)
OPENINGS = ("<think>\n", "</think>", "SAY:")
CLOSE = "</think>\n\n"
CERTAIN = 200.0  # no seed draws another token: at 20.0, one of a million did
CLOSE_IN_PROMPT = "<END>"  # the chat template takes "/think" out of what users write


class Script:
    """What one slot has been fed, and what its model wants to say next."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.fed: list[int] = []
        self._think: list[int] | None = None
        self._answer: list[int] = []
        self._num_prompt = 0

    def next(self) -> int:
        if self._think is None and not self._begin():
            return 0
        said = self.fed[self._num_prompt :]
        start = self._answer_start(said)
        script, position = (
            (self._answer, len(said) - start) if start >= 0 else (self._think, len(said))
        )
        return script[position] if script and position < len(script) else self._tokenizer.eos_ids[0]

    def _begin(self) -> bool:
        text = self._tokenizer.decode(self.fed, skip_special_tokens=False)
        found = SAY.findall(text)
        if not found or not text.endswith(OPENINGS):
            return False
        think, tag, answer = found[-1].replace(CLOSE_IN_PROMPT, CLOSE).partition(CLOSE)
        is_open = text.endswith("<think>\n") and tag
        self._think = self._encode(think + tag) if is_open else []
        self._answer = self._encode(answer if tag else think)
        self._num_prompt = len(self.fed)
        return True

    def _answer_start(self, said: list[int]) -> int:
        """Return where the answer begins in what was said, -1 while it thinks."""
        if not self._think:
            return 0
        for size in range(len(said) + 1):
            if CLOSE in self._tokenizer.decode(said[:size]):
                return size
        return -1

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)


class ScriptedEngine(StandInEngine):
    """The Engine protocol over scripts; a step lasts $SCRIPTED_STEP_MS."""

    def __init__(self, tokenizer: Tokenizer, limits: Limits) -> None:
        super().__init__(limits, tokenizer.vocab_size)
        self._tokenizer = tokenizer
        self._scripts: dict[int, Script] = {}
        self._step_s = float(os.environ.get("SCRIPTED_STEP_MS", "1")) / 1000

    def allocate(self) -> int:
        slot = super().allocate()
        self._scripts[slot] = Script(self._tokenizer)
        return slot

    def step(self, feeds: Sequence[Feed]) -> np.ndarray:
        time.sleep(self._step_s)
        return step_by_rows(self._one_row_each, feeds)

    def _one_row_each(self, feeds: Sequence[Feed]) -> np.ndarray:
        logits = np.zeros((len(feeds), self.vocab_size), np.float32)
        for row, feed in enumerate(feeds):
            script = self._scripts[feed.slot]
            script.fed += feed.tokens
            if "DIE" in self._tokenizer.decode(list(feed.tokens)):
                raise RuntimeError("told to fail")
            logits[row, script.next()] = CERTAIN
        self.advance(feeds)
        return logits


def open_scripted(folder: Path, *options: object) -> opening.OpenEngine:
    opened = opening.open_engine(folder, OpenOptions(1), verify=False)
    assert opened.tokenizer is not None
    limits = opened.manifest.engine_limits
    return replace(opened, engine=ScriptedEngine(opened.tokenizer, limits))


if __name__ == "__main__":
    engine_host.open_engine = open_scripted
    sys.exit(engine_host.main())
