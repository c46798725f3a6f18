"""Requests of every kind over the tiny model, run with guesses and without."""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.model.families import DEFAULT
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.runtime.request import Request, Update
from nemotrt.engines.runtime.sampling.bad_words import WithoutWords, word_tokens
from nemotrt.engines.runtime.sampling.guide import Guide
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.sampling.thinking_budget import AfterThinking, ThinkingBudget
from nemotrt.engines.runtime.scheduling.reuse import KeepRules, Reuse
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler
from nemotrt.engines.runtime.speculation.speculation import Speculation
from nemotrt.engines.runtime.state.kept.prefix_cache import PrefixCache
from nemotrt.engines.text.reasoning import Trace
from nemotrt.engines.text.tag_tokens import tag_tokens
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.grammar.compile import compile_grammar, grammar_vocabulary
from nemotrt.serve.grammar.guide import GrammarGuide

LIMITS = Limits(max_batch_size=6, max_seq_len=256, chunk_tokens=24)
SCHEMA = {
    "type": "object",
    "properties": {"name": {"const": "current_weather"}, "unit": {"enum": ["celsius", "kelvin"]}},
    "required": ["name", "unit"],
    "additionalProperties": False,
}
TEXTS = (
    "The engine takes the token and the engine takes the state and the engine takes",
    "def step(self):\n    return self.step\n\ndef stop(self):\n    return",
    '{"name": "a", "size": 1}, {"name": "b", "size": 2}, {"name":',
    "It was a dark night.",
    "日本語の説明書です。🙂🙃日本語の",
)
WORDS = ("the", "engine", "takes the state", "日本語")


class Speculating:
    """The tiny native engine, opened for guesses, and requests of every kind over it."""

    def __init__(self, folder: Path, model: str = "tiny", guesses: int = 8) -> None:
        spec = BuildSpec("native", precision=Precision.INT8_WO, limits=LIMITS)
        build_engine(TINY_MODELS[model], folder / "e", spec)
        options = OpenOptions(num_threads=1, speculate=str(guesses))
        self.opened: OpenEngine = open_engine(folder / "e", options, verify=False)
        assert self.opened.tokenizer is not None
        self.tokenizer = self.opened.tokenizer
        vocab, ends = self.opened.engine.vocab_size, self.opened.end_ids
        self._vocabulary = grammar_vocabulary(self.tokenizer, vocab, list(ends))
        self._matcher = compile_grammar("json_schema", json.dumps(SCHEMA), self._vocabulary)
        self._tags = tag_tokens(self.tokenizer, vocab, ends)

    def scheduler(
        self, *, guesses: bool, keeps: bool = False, num_kept: int = 100, **more: Any
    ) -> Scheduler:
        """Return a scheduler; with `keeps` it has memory for so many states of 60 tokens."""
        engine: Any = self.opened.engine
        kept_bytes = num_kept * engine.state_bytes.of(60)
        reuse = Reuse(engine, PrefixCache(kept_bytes, engine.state_bytes), KeepRules())
        return Scheduler(
            engine,
            self.tokenizer,
            eos_ids=self.opened.eos_ids,
            reuse=reuse if keeps else None,
            speculation=Speculation(engine) if guesses else None,
            clock=lambda: 0.0,  # a step costs nothing: all is guessed
            **more,
        )

    def request(self, name: str, seed: int) -> Request:
        """Return the request of a seed, with a guide of its own."""
        rng = random.Random(seed)
        prompt = self.tokenizer.encode(rng.choice(TEXTS))
        prompt = prompt[: rng.randint(1, len(prompt))] * rng.choice([1, 1, 2])
        vocab = self.opened.engine.vocab_size
        prompt += rng.choice([[], [], [], [vocab - 1, 0], prompt * 20])
        prompt = prompt[: LIMITS.max_seq_len - rng.choice([0, 1, 60])]
        room = LIMITS.max_seq_len - len(prompt)  # a text may end where the slot does
        most = min(rng.choice([0, 1, room, rng.randint(2, 60), rng.randint(2, 60)]), room)
        params = SamplingParams(
            max_tokens=most,
            min_tokens=rng.choice([0, 0, min(most, 8)]),
            temperature=rng.choice([0.0, 0.0, 0.6, 1.0]),
            top_p=rng.choice([1.0, 0.95]),
            top_k=rng.choice([0, 20]),
            min_p=rng.choice([0.0, 0.05]),
            seed=rng.getrandbits(60),
            repetition_penalty=rng.choice([1.0, 1.0, 1.1]),
            presence_penalty=rng.choice([0.0, 0.0, 0.4, -0.5]),
            frequency_penalty=rng.choice([0.0, 0.0, 0.2, -1.0]),
            logit_bias=rng.choice([(), ((40, 3.0), (41, -100.0)), ((vocab - 1, 5.0),)]),
            stop=rng.choice([(), (), ("the", "re"), ("\n",), ("ine takes the to", "日")]),
            stop_token_ids=rng.choice([(), (), (50, 60, 70, 80, 90)]),
            skip_special_tokens=rng.random() < 0.5,
            include_stop_str_in_output=rng.random() < 0.5,
            ignore_eos=rng.random() < 0.7,
            logprobs=rng.choice([None, 0, 3]),
            prompt_logprobs=rng.choice([None, None, None, 1]),
        )
        trace = rng.choice([Trace.CLOSED, Trace.CLOSED, Trace.OPEN, Trace.BEFORE])
        return Request(
            name,
            tuple(prompt),
            params,
            self._guide(rng, trace),
            trace,
            salt=rng.choice(["", "a"]),
            priority=rng.randint(-1, 1),
        )

    def _guide(self, rng: random.Random, trace: Trace) -> Guide | None:
        """Return no guide, a grammar, a budget or both; and words that may not come over it."""
        inner = self._inner_guide(rng, trace)
        if rng.random() < 0.7:
            return inner
        words = word_tokens(rng.sample(WORDS, rng.randint(1, 3)), self._encode)
        return WithoutWords(words, self.opened.engine.vocab_size, inner)

    def _inner_guide(self, rng: random.Random, trace: Trace) -> Guide | None:
        what = rng.choice(["none", "none", "budget", "grammar", "both"])
        grammar = GrammarGuide(self._matcher.deep_copy(), self._vocabulary)
        budget = ThinkingBudget(DEFAULT, rng.randint(0, 6), self._encode, trace)
        if what == "budget":
            return budget
        if what == "grammar" or (what == "both" and trace is Trace.CLOSED):
            return grammar
        return AfterThinking(budget, grammar, self._tags) if what == "both" else None

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)


def answers(scheduler: Scheduler, requests: Iterable[Request]) -> dict[str, list[Update]]:
    found: dict[str, list[Update]] = {}
    for request in requests:
        found[request.request_id] = []
        scheduler.submit(request)
    while not scheduler.is_idle:
        for update in scheduler.step():
            found[update.request_id].append(update)
    return found
