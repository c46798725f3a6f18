"""Two servers over one engine that all tests of this folder ask: with Triton, and without it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotrt.serve.processes.launcher import serve_engine
from nemotrt.serve.processes.run_folder import ServerState


@pytest.fixture(scope="session")
def server(engine_folder: Path, triton_runtime: None) -> Iterator[ServerState]:
    with serve_engine(engine_folder, "--threads", "1", drain_s=10) as state:
        yield state


@pytest.fixture(scope="session")
def direct(engine_folder: Path) -> Iterator[ServerState]:
    """A server whose front speaks to the engine without Triton."""
    options = ("--threads", "1", "--no-triton")
    with serve_engine(engine_folder, *options, drain_s=5) as state:
        yield state
