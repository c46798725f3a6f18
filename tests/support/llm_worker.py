"""The process in which the stand-in of TensorRT-LLM computes: our CPU engine, behind two pipes."""

import base64
import json
import queue
import random
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines import opening
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.checkpoint.lora.named import NamedAdapter
from nemotrt.engines.runtime.engine import Engine, Feed, Limits
from nemotrt.engines.runtime.request import Request, Update
from nemotrt.engines.runtime.sampling.params import SamplingParams
from nemotrt.engines.runtime.scheduling.scheduler import Scheduler

CHUNK = 16
NAME = "adapter"


def main() -> None:
    model, max_batch_size, max_seq_len = sys.argv[1:]
    limits = Limits(int(max_batch_size), int(max_seq_len), CHUNK)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "engine"
        build_engine(Path(model), target, BuildSpec(limits=limits))
        other = opening.open_engine(target, OpenOptions(1)).engine

        def adapted(folder: str) -> Scheduler:
            if not folder:
                return Scheduler(opening.open_engine(target, OpenOptions(1)).engine)
            native = target.with_name("native")  # only it takes adapters
            build_engine(Path(model), native, BuildSpec("native", limits=limits), force=True)
            options = OpenOptions(1, lora=(NamedAdapter(NAME, Path(folder)),))
            return Scheduler(opening.open_engine(native, options).engine)

        tell({"op": "ready"})
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=hear, args=(inbox,), daemon=True).start()
        run(adapted, other, inbox)


def hear(inbox: "queue.SimpleQueue[Any]") -> None:
    for line in sys.stdin:
        inbox.put(json.loads(line))
    inbox.put(None)


def run(
    adapted: Callable[[str], Scheduler], other: Engine, inbox: "queue.SimpleQueue[Any]"
) -> None:
    schedulers = {"": adapted("")}  # by the folder of their adapter
    held: dict[str, list[Update]] = {}
    chance = random.Random(0)  # how many tokens a response carries
    contexts: dict[str, Any] = {}
    while True:
        while all(one.is_idle for one in schedulers.values()) or not inbox.empty():
            told = inbox.get()
            if told is None:
                return
            if told["op"] == "cancel":
                for one in schedulers.values():
                    one.cancel(told["name"])
                continue
            if told["params"]["return_context_logits"]:
                contexts[told["name"]] = context_logits(other, told["prompt"])
            folder = told["params"].get("adapter", "")
            if folder not in schedulers:
                schedulers[folder] = adapted(folder)
            found = request(told["name"], told["prompt"], told["params"])
            schedulers[folder].submit(replace(found, adapter=NAME if folder else ""))
        for update in chain.from_iterable(one.step() for one in schedulers.values()):
            pending = held.setdefault(update.request_id, [])
            pending.append(update)
            if update.finish_reason is not None or chance.random() < 0.5:
                news = response(held.pop(update.request_id))
                rows = contexts.pop(update.request_id, None)
                if rows is not None:
                    encoded = base64.b64encode(rows.tobytes()).decode()
                    news |= {"context": encoded, "vocab": rows.shape[1]}
                tell(news)


def response(updates: list[Update]) -> dict[str, Any]:
    tokens = [(t.id, t.logprob, t.top_logprobs) for update in updates for t in update.tokens]
    reason = updates[-1].finish_reason
    name = updates[-1].request_id
    return {
        "name": name,
        "tokens": tokens,
        "finish_reason": None if reason is None else str(reason),
    }


def context_logits(engine: Engine, prompt: list[int]) -> Any:
    slot = engine.allocate()
    pieces = [prompt[start : start + CHUNK] for start in range(0, len(prompt), CHUNK)]
    rows = [engine.step([Feed(slot, p, len(p))]).copy() for p in pieces]
    engine.release(slot)
    return np.concatenate(rows)


def request(name: str, prompt: list[int], params: dict[str, Any]) -> Request:
    # The real one forbids end_id alone before min_tokens; our scheduler below forbids them all.
    assert not (params["min_tokens"] and params["stop_token_ids"]), "a stop token may come early"
    end = () if params["ignore_eos"] else (params["end_id"] or 0,)
    ends = (*(params["stop_token_ids"] or ()), *end)
    spread = params["temperature"], params["top_p"], params["top_k"]
    is_greedy = spread == (None, None, None) or spread[2] == 1 or 0 in spread[:2]
    fields = SamplingParams(
        max_tokens=params["max_tokens"],
        min_tokens=params["min_tokens"] or 0,
        temperature=0.0 if is_greedy else (params["temperature"] or 1.0),
        top_k=params["top_k"] or 0,
        top_p=1.0 if params["top_p"] is None else params["top_p"],
        seed=params["seed"],
        repetition_penalty=params["repetition_penalty"] or 1.0,
        presence_penalty=params["presence_penalty"] or 0.0,
        frequency_penalty=params["frequency_penalty"] or 0.0,
        min_p=params["min_p"] or 0.0,
        logit_bias=tuple((token, value) for token, value in params["biases"]),
        stop_token_ids=tuple(token for token in ends if token >= 0),
        logprobs=params["logprobs"],
    )
    return Request(name, tuple(prompt), fields)


def tell(message: Any) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
