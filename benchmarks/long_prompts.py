"""What long prompts that arrive do to the time between another request's tokens.

Run: python benchmarks/long_prompts.py [--prompt-tokens 100000] [--target-itl-ms 50]

At the real vocabulary, over HTTP. `paced` is a device that takes a fixed time a step whatever is
fed, so its gaps are the host's doing: reading, tokenizing, checking, slicing. `tiny` computes on
one thread, so a prompt's chunks lengthen its steps, which the target holds down.
"""

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import click
import httpx
import numpy as np

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.serve.processes.launcher import serve_engine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.real_size import write_checkpoint

HERE = Path(__file__).parent
CARD = {"temperature": 0.6, "top_p": 0.95}  # Source: model card
TEXT = "東京の天気は晴れです。 The conversation goes on, and its history grows with each turn. "
SETTLED = 50  # tokens of the stream before anything else comes
ALONE_S = 5.0  # of a stream that nothing disturbs


class Stream:
    """A request whose tokens come one by one; `times` has when each came."""

    def __init__(self, url: str) -> None:
        """Begin it, and wait until it is in its stride."""
        self.times: list[float] = []
        self._settled, self._is_over = threading.Event(), False
        self._thread = threading.Thread(target=self._read, args=(url,))
        self._thread.start()
        self._settled.wait()

    def _read(self, url: str) -> None:
        body = {"model": "llm", "prompt": "a", "max_tokens": 100_000, "ignore_eos": True}
        body |= CARD | {"stream": True}
        with httpx.stream("POST", f"{url}/completions", json=body, timeout=600) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    self.times.append(time.perf_counter())
                if len(self.times) == SETTLED:
                    self._settled.set()
                if self._is_over:
                    return

    def end(self) -> None:
        """Hang up."""
        self._is_over = True
        self._thread.join()


def gaps_ms(url: str, prompts: list[str]) -> tuple[np.ndarray, int]:
    """Return the gaps of a stream while the prompts come one after the other, and their tokens."""
    stream = Stream(url)
    begin_s, count = time.perf_counter(), 0
    for prompt in prompts:
        body = {"model": "llm", "prompt": prompt, "max_tokens": 1, "temperature": 0}
        answer = httpx.post(f"{url}/completions", json=body, timeout=600)
        answer.raise_for_status()
        count += answer.json()["usage"]["prompt_tokens"]
    time.sleep(0 if prompts else ALONE_S)
    end_s = time.perf_counter()
    stream.end()
    during = np.array([x for x in stream.times if begin_s <= x <= end_s])
    return 1e3 * np.diff(during), count


@click.command()
@click.option("--engine", "kinds", type=click.Choice(("paced", "tiny")), multiple=True)
@click.option("--prompt-tokens", type=click.IntRange(100), default=100_000)
@click.option("--prompts", "num_prompts", type=click.IntRange(1), default=2)
@click.option("--target-itl-ms", type=float, default=50.0)
@click.option("--step-ms", type=float, default=20.0, help="Of the paced device.")
def main(
    kinds: tuple[str, ...],
    prompt_tokens: int,
    num_prompts: int,
    target_itl_ms: float,
    step_ms: float,
) -> None:
    """Print one JSON object for each engine, alone, beside prompts, and with the target."""
    paths = [str(HERE), str(HERE.parent / "tests"), os.environ.get("PYTHONPATH", "")]
    os.environ |= {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    os.environ |= {"PACED_STEP_MS": str(step_ms)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "engine"
        checkpoint = write_checkpoint(Path(temporary) / "checkpoint")
        build_engine(checkpoint, folder, BuildSpec(limits=Limits(4, 131_072, 2048)))
        text = TEXT * (prompt_tokens // 27)
        for kind in kinds or ("paced", "tiny"):
            how = ["--engine-module", "serve_paced_host"] if kind == "paced" else ["--threads", "1"]
            target = ["--target-itl-ms", str(target_itl_ms)]
            for name, options, prompts in [
                ("alone", [], []),
                ("beside prompts", [], [text] * num_prompts),
                ("with the target", target, [text] * num_prompts),
            ]:
                with serve_engine(folder, "--no-triton", *how, *options) as server:
                    gaps, count = gaps_ms(server.openai_url, prompts)
                row = {"engine": kind, "case": name, "prompt_tokens": count}
                row |= {f"p{q}_ms": round(float(np.percentile(gaps, q)), 1) for q in (50, 99)}
                row |= {"max_ms": round(float(gaps.max()), 1), "load": round(os.getloadavg()[0], 1)}
                click.echo(json.dumps(row))


if __name__ == "__main__":
    main()
