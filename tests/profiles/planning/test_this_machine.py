"""The CPU as a device: the probe itself on a tiny matrix, and a plan on known rates."""

import json

import pytest
from click.testing import CliRunner

from nemotrt.errors import ChildProcessFailedError
from nemotrt.profiles.planning import cpu_probe, this_machine
from nemotrt.profiles.planning.command import plan

# 32 GB/s of memory, 200 GB/s of cache, 0.16 TFLOPS.
RATES = {"stream": 32e9, "cached": 200e9, "flops": 0.16e12}


def test_probe_measures_something_physical(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_probe, "MEASURE_S", 0.02)
    assert 1e7 < cpu_probe.rate(2**20, 1) < 1e13


def test_plan_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_machine, "_probe", lambda: RATES)
    monkeypatch.setattr(this_machine, "_available_mib", lambda: 65_536)
    monkeypatch.setattr(this_machine, "_cache_mib", lambda: 32.0)
    args = ["nemotron-nano-9b-v2", "--gpu", "this-machine", "--batch-size", "1", "--json"]
    result = CliRunner().invoke(plan, [*args, "--isl", "64", "--osl", "64"])
    assert result.exit_code == 0, result.output
    raw = json.loads(result.stdout)
    assert (raw["gpu"], raw["engine"]) == ("this-machine", "nemotrt-cpu")
    # 16.6 GB of bf16 weights at 0.8 of 32 GB/s.
    assert raw["decode_step_ms"]["weights"] == pytest.approx(16.6e9 / 25.6e6, rel=0.02)
    assert raw["joules_per_token"] is None  # nobody sourced this machine's power


def test_small_models_stay_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_machine, "_probe", lambda: RATES)
    monkeypatch.setattr(this_machine, "_cache_mib", lambda: 32.0)
    from nemotrt.profiles.planning.engine_profile import load_engine
    from nemotrt.profiles.planning.operators import Operator, Resource
    from nemotrt.profiles.planning.roofline import Scenario, device

    on = device(this_machine.measure_this_machine(), load_engine("nemotrt-cpu"), Scenario.FLOOR)
    operator = Operator("mlp", Resource.WEIGHTS, 8e6)
    assert on.touching(8e6).memory_seconds(operator) == pytest.approx(8e6 / 200e9)
    assert on.touching(8e9).memory_seconds(operator) == pytest.approx(8e6 / 32e9)


def test_a_failing_probe_is_a_child_process_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_machine, "PROBE", "no.such.module")
    with pytest.raises(ChildProcessFailedError, match="failed with code 1"):
        this_machine.measure_this_machine()
