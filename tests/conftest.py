"""Fixtures that several folders share: the shipped tiny models, built once a session."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pynvml
import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS

# A machine may be busy: an example's time is no property of what it shows.
for profile, max_examples in (("quick", 20), ("thorough", 200)):
    hypothesis.settings.register_profile(
        profile,
        deadline=None,
        max_examples=max_examples,
        print_blob=True,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
hypothesis.settings.load_profile("quick")  # make test-all takes the other

# What a shell starts with `&` ignores Ctrl-C, and so does what it starts; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

TINY_LIMITS = Limits(max_batch_size=8, max_seq_len=512, chunk_tokens=32)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a worker whole folders below a room, and else whole files: they share what is made.

    They go in the tests' own order, so that the many files of tests/serve come last, and no
    worker is left with a long one.
    """
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False

    class ByFolder(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "/".join(nodeid.partition("::")[0].split("/")[:3])

    return ByFolder(config, log)


@pytest.fixture(scope="session")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped hybrid as a float32 CPU engine: 8 slots, 512 tokens, chunks of 32."""
    target = tmp_path_factory.mktemp("tiny") / "engine"
    spec = BuildSpec(precision=Precision.FP32, limits=TINY_LIMITS)
    build_engine(TINY_MODELS["tiny"], target, spec)
    return target


@pytest.fixture(autouse=True)
def _no_gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the host's GPUs, so that a test finds the same on any machine."""
    if request.node.get_closest_marker("gpu") is not None:
        return

    def absent(flags: int) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInitWithFlags", absent)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep Hugging Face libraries off the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield


@pytest.fixture(autouse=True)
def _own_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a command that serves sets for its process."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    loggers = [logging.getLogger(name) for name in ("", "nemotrt")]
    before = [(logger, logger.level, [*logger.handlers]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
