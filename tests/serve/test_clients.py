"""Real clients of 2026, unchanged, against the trained tiny model; each in its own script.

The scripts run in an environment of their own (support/peers.py), since clients pin much.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.serve.processes.launcher import serve_engine
from support.peers import PEERS, peer_python

pytestmark = pytest.mark.slow
SCRIPTS = sorted((Path(__file__).parent / "clients").glob("use_*.py"))
DOCS = Path(__file__).parents[2] / "docs/reference/http/clients.md"


def client_of(script: Path) -> str:
    """Return the environment's name for a script's client."""
    return script.stem.removeprefix("use_")


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """The hybrid, with room for agents' own instructions: smolagents' are 1,783 tokens."""
    folder = tmp_path_factory.mktemp("clients") / "engine"
    limits = Limits(max_batch_size=8, max_seq_len=8192, chunk_tokens=256)
    build_engine(TINY_MODELS["tiny"], folder, BuildSpec(limits=limits))
    with serve_engine(folder, "--no-triton", "--free-ports", drain_s=5) as server:
        yield server.openai_url


@pytest.mark.parametrize("script", SCRIPTS, ids=client_of)
def test_a_client_works_unchanged(script, address) -> None:
    command = [peer_python(client_of(script)), script, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"check"')]
    faults = [f"{one['check']}:\n{one['fault']}" for one in results if one["fault"]]
    assert not faults, "\n".join(faults)
    declared = script.read_text("utf-8").count("\n@check\n")
    assert len(results) == declared > 0, done.stderr[-3000:]


def test_the_table_in_the_docs_names_every_client_and_its_version() -> None:
    text = DOCS.read_text("utf-8")
    for script in SCRIPTS:
        name, _, version = PEERS[client_of(script)][0].partition("==")
        assert f"| {name.partition('[')[0]} {version} |" in text, script


if __name__ == "__main__":  # python tests/serve/test_clients.py ADDRESS: all scripts, by hand
    for script in SCRIPTS:
        subprocess.run([peer_python(client_of(script)), script, sys.argv[1]], check=False)
