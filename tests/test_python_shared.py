"""One engine, many hands: threads, forks, an engine that is closed or broken, and wrong types."""

import gc
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nemotrt import SamplingParams
from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError, NemotrtError
from nemotrt.llm import LLM

PROMPTS = ["The Debian package", "このコマンドは", "def main", "A file"]
PARAMS = SamplingParams(max_tokens=24, ignore_eos=True)
FORK_S = 20.0


@pytest.fixture(scope="module")
def llm(tiny_engine: Path) -> Iterator[LLM]:
    with LLM(tiny_engine) as opened:
        yield opened


def test_threads_that_share_an_engine_get_the_answers_that_they_get_alone(llm: LLM) -> None:
    alone = {prompt: llm.generate(prompt, PARAMS).text for prompt in PROMPTS}
    wrong: list[object] = []

    def ask(prompt: str) -> None:
        try:
            for _ in range(5):
                pieces = [piece.text for piece in llm.stream(prompt, PARAMS)]
                told = ["".join(pieces), llm.generate(prompt, PARAMS).text]
                wrong.extend(text for text in told if text != alone[prompt])
        except BaseException as error:  # a thread's fault is the test's
            wrong.append(error)

    threads = [threading.Thread(target=ask, args=(prompt,)) for prompt in 2 * PROMPTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and llm._live.inboxes == {}


def in_fork(work: Any) -> str:
    """Return what `work` says in a fork of this process, or that it hangs."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    end_s = time.monotonic() + FORK_S
    while not os.waitpid(pid, os.WNOHANG)[0]:
        if time.monotonic() > end_s:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return "hangs"
        time.sleep(0.02)
    with os.fdopen(reading) as stream:
        return stream.read()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("backend", ["onnxruntime", "native"])
def test_a_fork_is_told_to_open_its_own_and_ends(tmp_path: Path, backend: str) -> None:
    spec = BuildSpec(backend, limits=Limits(max_batch_size=2, max_seq_len=64, chunk_tokens=16))
    build_engine(TINY_MODELS["tiny"], tmp_path / "engine", spec)
    llm = LLM(tmp_path / "engine")
    stream = llm.stream("The", PARAMS)
    next(stream)
    assert "is a fork of it: open one here" in in_fork(lambda: llm.generate("The", PARAMS))
    assert "is a fork of it" in in_fork(lambda: next(stream))
    assert in_fork(stream.close) == "None"  # type: ignore[attr-defined]

    def drop() -> str:
        nonlocal llm, stream
        del llm, stream
        gc.collect()
        return "gone"

    assert in_fork(drop) == "gone"
    assert llm.generate("The", PARAMS).text
    llm.close()


def test_a_closed_engine_says_so(tiny_engine: Path) -> None:
    llm = LLM(tiny_engine)
    stream = llm.stream("The", PARAMS)
    next(stream)
    llm.close()
    llm.close()
    for call in (lambda: llm.generate("The", PARAMS), lambda: llm.chat("Hi"), lambda: next(stream)):
        with pytest.raises(NemotrtError, match="the engine is closed"):
            call()
    stream.close()  # type: ignore[attr-defined]


def test_after_a_step_that_was_cut_nothing_goes_on(tiny_engine: Path) -> None:
    """A scheduler that has lost half a step would go on with wrong states."""
    with LLM(tiny_engine) as llm:

        def cut() -> Any:
            raise TimeoutError("an alarm")

        llm._live.scheduler.step = cut  # type: ignore[method-assign]
        with pytest.raises(TimeoutError):
            llm.generate("The", PARAMS)
        with pytest.raises(NemotrtError, match="has failed, open it again: an alarm"):
            llm.generate("The", PARAMS)


@pytest.mark.parametrize(
    "prompt", [5, None, [1, 2, 3], [{"role": "user", "content": "Hi"}], {"prompt": "Hi"}, [["a"]]]
)
def test_what_is_no_text_is_refused(llm: LLM, prompt: Any) -> None:
    with pytest.raises(ConfigError, match="takes a text, or a list of texts"):
        llm.generate(prompt)


@pytest.mark.parametrize("messages", [5, None, [], ["Hi"], {"role": "user"}, [[{"role": "user"}]]])
def test_what_are_no_messages_is_refused(llm: LLM, messages: Any) -> None:
    for call in (llm.chat, lambda given: next(llm.stream(given))):
        with pytest.raises(ConfigError, match="messages must be a list of mappings"):
            call(messages)
    assert llm._live.inboxes == {}
