"""Fixtures of the profile tests: a scripted server, an engine directory."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nemotrt.engines.text.tokenizer import Tokenizer, load_tokenizer
from nemotrt.engines.tiny.models import TINY_MODELS
from support.peers import peer_python


class Scripted:
    """A running scripted server."""

    def __init__(self, script: str = "scripted_server.py", scheme: str = "http") -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script))],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = f"{scheme}://127.0.0.1:{int(self.process.stdout.readline())}"

    def log(self) -> Any:
        with urllib.request.urlopen(f"{self.url}/log", timeout=5) as response:
            return json.load(response)

    def stop(self) -> None:
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    server = Scripted()
    yield server
    server.stop()


@pytest.fixture
def scripted_grpc() -> Iterator[Scripted]:
    server = Scripted("scripted_grpc_server.py", "grpc")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def real_aiperf() -> str:
    """The real program: $AIPERF, on the PATH, or of an environment of its own (1.2 GB)."""
    found = os.environ.get("AIPERF") or shutil.which("aiperf")
    return found or str(peer_python("aiperf").with_name("aiperf"))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    found = load_tokenizer(TINY_MODELS["tiny-dense"])
    assert found is not None
    return found


@pytest.fixture(scope="session")
def engine_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from nemotrt.build.engine_builder import BuildSpec, build_engine

    folder = tmp_path_factory.mktemp("engine") / "dense"
    build_engine(TINY_MODELS["tiny-dense"], folder, BuildSpec())
    return folder
