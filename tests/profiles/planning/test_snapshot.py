"""Over 500 plans stay what they were, to the last digit of every number.

plans.tsv holds command lines that were drawn at random, and for each a digest of every number of
its record, and a few of them, so that a difference can be read. Where a figure is meant to change,
rewrite the file:

    PYTHONPATH=tests python tests/profiles/planning/test_snapshot.py
"""

import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nemotrt.cli import main
from support.plan_models import write_models

PLANS = Path(__file__).with_name("plans.tsv")
HEADLINE = ("weights_bytes", "workspace_bytes", "max_batch_size", "ttft_ms", "tpot_ms")
WORDS = ("bound_by", "limited_by", "resource", "precision", "kv_dtype", "ssm_dtype")


def numbers(value: Any, path: str = "") -> Iterator[str]:
    """Every number of a record with its place, and the words that follow from numbers."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from numbers(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            name = inner["name"] if isinstance(inner, dict) else ""
            yield from numbers(inner, f"{path}[{place}{name}]")
    elif not isinstance(value, str) or path.rpartition(".")[2] in WORDS:
        yield f"{path}={value!r}"
    elif held := re.findall(r"it holds (\d+)", value):
        yield f"{path}={held}"


def outcome(args: list[str]) -> str:
    """The record of a plan in one line; of a refusal its exit code, and what does not fit."""
    result = CliRunner().invoke(main, ["plan", *args, "--json"])
    if result.exit_code == 4:
        return f"no plan: {' '.join(re.findall(r'[0-9.]*[0-9]', result.stderr))}"
    if result.exit_code:
        assert result.exit_code == 2, result.output
        return "refused"
    raw = json.loads(result.stdout)
    del raw["engines"]  # of other engines than the one that the line names
    for one in (raw, raw["baseline"] or {}):
        assert one.pop("speculation", None) is None  # no line has any
    digest = hashlib.sha256("\n".join(numbers(raw)).encode()).hexdigest()[:16]
    return " ".join([digest, *(f"{name}={raw[name]!r}" for name in HEADLINE)])


def snapshot(lines: list[str]) -> list[str]:
    """The lines, which are arguments, a tab and an outcome, with the outcomes of today."""
    every = [line.split("\t")[0] for line in lines]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        write_models(Path())
        return [f"{args}\t{outcome(args.split())}" for args in every]


@pytest.mark.parametrize("each", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_every_plan_is_what_it_was(each: int) -> None:
    """Nine models, quantized configs and files, twelve GPUs, two CPUs, eight engines, refusals."""
    before = PLANS.read_text().splitlines()
    assert sum("weights_bytes=" in line for line in before) >= 500
    before = before[::each]
    after = snapshot(before)
    changed = [f"{old}\nnow {new}" for old, new in zip(before, after, strict=True) if old != new]
    assert not changed, f"{len(changed)} plans differ:\n" + "\n".join(changed[:5])


if __name__ == "__main__":
    PLANS.write_text("".join(f"{line}\n" for line in snapshot(PLANS.read_text().splitlines())))
