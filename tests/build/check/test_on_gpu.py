"""`nemotrt check` on a real GPU. Not executed by its authors: run `pytest -m gpu` there."""

import json
import time

import pytest
from click.testing import CliRunner

from nemotrt.build.check.kernels.check import work
from nemotrt.cli import main

pytestmark = pytest.mark.gpu
MAX_S = 180


def test_every_kernel_is_right_and_timed() -> None:
    """Every case: small and real sizes, one to 128 sequences; in three minutes."""
    start_s = time.perf_counter()
    ran = CliRunner().invoke(main, ["check", "--kernels", "--json"])
    assert ran.exit_code == 0, ran.output
    found = json.loads(ran.stdout)
    assert found["faults"] == [] and len(found["kernels"]["rows"]) >= len(work())
    assert {row["sequences"] for row in found["kernels"]["rows"]} >= {1, 8, 32, 128}
    assert found["gpu"]["facts"]["name"]
    assert time.perf_counter() - start_s < MAX_S
