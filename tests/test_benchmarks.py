"""The benchmarks: `make bench` runs each without arguments."""

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = [path for path in sorted(FOLDER.glob("*.py")) if not path.stem.endswith("_host")]


class AtWorkError(Exception):
    """The script has taken its arguments."""


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_no_argument_is_required(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(path, monkeypatch)
    parse_args = argparse.ArgumentParser.parse_args

    def parsed(parser: argparse.ArgumentParser, *words: Any) -> None:
        parse_args(parser, *words)
        raise AtWorkError

    def at_work(*_: Any, **__: Any) -> None:
        raise AtWorkError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(click.Command, "invoke", at_work)
    monkeypatch.setattr(tempfile, "TemporaryDirectory", at_work)
    monkeypatch.setattr(sys, "argv", [str(path)])
    with pytest.raises(AtWorkError):
        module.main()


def test_the_share_is_the_median_of_the_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(FOLDER / "serve_throughput.py", monkeypatch)
    rates = ((1000, 900), (100, 80), (500, 500))  # the machine was slow in the second
    found = module.summary([module.Pair(bare, stack, 1.0, {"front": 2.0}) for bare, stack in rates])
    assert found["shares"] == [0.9, 0.8, 1.0]
    assert found["share"] == 0.9
    assert found["cpu_us_per_token"] == {"front": 2}


@pytest.mark.slow
def test_bare_and_stack_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEMOTRT_API_KEYS", "a-key-of-the-user")
    command = [sys.executable, str(FOLDER / "serve_throughput.py"), "--no-triton"]
    command += ["--engine", "paced", "--streams", "2", "--tokens", "40", "--rounds", "2"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    row = json.loads(ran.stdout)
    for rate in (*row["bare_tokens_per_s"], *row["stack_tokens_per_s"]):
        assert 0 < rate <= 2 / 5e-3 * 1.03  # two streams, a token each 5 ms
