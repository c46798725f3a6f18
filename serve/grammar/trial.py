"""Tries grammars in a process of its own, which a grammar that takes too long to compile ends.

llguidance's compiler has no limit on time: nested Lark terminals, or an integer's `multipleOf`,
keep it busy for minutes, and a thread can't be ended. So each grammar that is new is compiled there
first, with a limit on the processor's time; what compiles there compiles here in as long.

usage: python -m nemotrt.serve.grammar.trial    # of the engine's process alone

It reads a line of JSON with the tokenizer, then one with each guide; it answers each by a line.
"""

import json
import resource
import signal
import subprocess
import sys
import threading
import weakref
from typing import Any

from nemotrt.errors import ConfigError
from nemotrt.serve.processes.give_way import give_way

# A schema of 4,000 required properties takes 0.3 s. Source: measured, llguidance 1.9.1, 2-core
# machine, 2026-11-29.
MAX_COMPILE_S = 2.0  # of the processor's time
MAX_MEMORY_BYTES = 8 << 30  # of addresses, most of which are never touched
MODULE = "nemotrt.serve.grammar.trial"


class GrammarTrial:
    """One process, started at its first use, and again once a grammar has ended it. Thread-safe."""

    def __init__(self, tokenizer_json: str, vocab_size: int, end_ids: list[int]) -> None:
        """Start nothing yet."""
        self._settings = {"tokenizer": tokenizer_json, "vocab": vocab_size, "ends": end_ids}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the process ahead of its first use."""
        with self._lock:
            self._running()

    def check(self, kind: str, guide: str) -> None:
        """Raise ConfigError unless a grammar compiles within MAX_COMPILE_S."""
        with self._lock:
            process = self._running()
            answer = _ask(process, {"kind": kind, "guide": guide})
            if not answer:
                self._process = None
                raise ConfigError(f"the {kind} grammar {_what_ended(process)}")
        fault = json.loads(answer)["fault"]
        if fault:
            raise ConfigError(fault)

    def _running(self) -> subprocess.Popen[str]:
        """Return the process, which has been told the tokenizer."""
        if self._process is None or self._process.poll() is not None:
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
            )
            weakref.finalize(self, _end, process)
            _tell(process, self._settings)
        return self._process


def _tell(process: subprocess.Popen[str], message: dict[str, Any]) -> None:
    """Write one line to the process, ASCII alone."""
    assert process.stdin is not None  # it has pipes
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def _ask(process: subprocess.Popen[str], message: dict[str, Any]) -> str:
    """Return the line with which the process answers, "" if it ends instead."""
    assert process.stdout is not None  # it has pipes
    try:
        _tell(process, message)
        return process.stdout.readline()
    except OSError:
        return ""


def _what_ended(process: subprocess.Popen[str]) -> str:
    """Return what a grammar did to the process, which answers no more."""
    _end(process)
    if process.returncode == -signal.SIGPROF:
        return f"takes more than {MAX_COMPILE_S:g} s to compile; simplify it."
    return "can't be compiled: its compiler fails on it."


def _end(process: subprocess.Popen[str]) -> None:
    """End the process, whatever it does, and let go of its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        try:
            if pipe is not None:
                pipe.close()
        except OSError:
            pass  # what was not written has no reader any more


def main() -> None:
    """Compile what comes, until the engine's process closes the pipe."""
    from nemotrt.engines.text.tokenizer import Tokenizer
    from nemotrt.serve.grammar.compile import grammar_vocabulary

    give_way()
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends the process, whatever it does
    settings = json.loads(sys.stdin.readline())
    tokenizer = Tokenizer.from_json(settings["tokenizer"])
    vocabulary = grammar_vocabulary(tokenizer, settings["vocab"], settings["ends"])
    for line in sys.stdin:
        wanted = json.loads(line)
        print(
            json.dumps({"fault": _fault(wanted["kind"], wanted["guide"], vocabulary)}), flush=True
        )


def _fault(kind: str, guide: str, vocabulary: Any) -> str:
    """Return why a grammar is refused, "" if it is not; the process ends if that takes too long."""
    from nemotrt.serve.grammar.compile import compile_grammar

    signal.setitimer(signal.ITIMER_PROF, MAX_COMPILE_S)
    try:
        compile_grammar(kind, guide, vocabulary)
    except ConfigError as error:
        return error.message
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


if __name__ == "__main__":
    main()
