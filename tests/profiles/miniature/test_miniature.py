"""The miniature's proportions, its budget, and (slow) its measurement."""

import json
import signal
import subprocess
import sys

import pytest
from click.testing import CliRunner

from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.tiny.random_checkpoint import write_checkpoint
from nemotrt.profiles.command import profile
from nemotrt.profiles.miniature.budget import make_budget
from nemotrt.profiles.miniature.measurement import measure_miniature
from nemotrt.profiles.miniature.pair import make_pair
from nemotrt.profiles.planning.answers import options
from nemotrt.profiles.planning.cpu import this_machine
from nemotrt.profiles.planning.memory.weights import num_parameters
from nemotrt.profiles.planning.sources.known_models import load_model
from nemotrt.profiles.runs.record.result import Status, read_result
from support.plan_models import SEEN
from support.simulated_run import simulate


@pytest.fixture
def unmeasured():
    """Forget what this process has measured of the machine, before and behind a test."""
    options.this_machine.cache_clear()
    yield
    options.this_machine.cache_clear()


def kv_elements(model):
    return 2 * model.num_attention_layers * model.num_key_value_heads * model.head_dim


def test_the_pair_has_the_real_proportions():
    pair = make_pair(1536)
    real_hybrid, real_baseline = load_model("nemotron-nano-9b-v2"), load_model("qwen3-8b")
    ratio = kv_elements(pair.baseline) / kv_elements(pair.hybrid)
    assert ratio == kv_elements(real_baseline) / kv_elements(real_hybrid) == 9
    assert num_parameters(pair.hybrid) == pytest.approx(num_parameters(pair.baseline), rel=0.005)
    state = pair.hybrid.ssm_state_elements + pair.hybrid.conv_state_elements
    real_state = real_hybrid.ssm_state_elements + real_hybrid.conv_state_elements
    share = state / (kv_elements(pair.hybrid) * 1536)
    assert share == pytest.approx(real_state / (kv_elements(real_hybrid) * 24576), rel=0.1)


def test_the_budget_holds_eight_and_one():
    budget = make_budget(make_pair(1536), 1536)
    assert (budget.hybrid_batch_size, budget.baseline_batch_size) == (8, 1)


def test_the_random_checkpoint_is_one(tmp_path):
    pair = make_pair(64)
    for name, config in (("h", pair.hybrid_json), ("b", pair.baseline_json)):
        write_checkpoint(tmp_path / name, config)
        open_checkpoint(tmp_path / name)


def test_the_command_in_seconds(tmp_path, monkeypatch, unmeasured):
    """So small that the proportions are lost; what is shown is that every part runs.

    The machine's rates are given: tests/profiles/planning/test_this_machine.py measures them.
    """
    monkeypatch.setattr(this_machine, "_probe", lambda engine, precision: SEEN)
    monkeypatch.setattr("nemotrt.profiles.miniature.pair.HIDDEN_SIZE", 64)
    monkeypatch.setattr("nemotrt.profiles.miniature.pair.VOCAB_SIZE", 256)
    args = ["miniature", "-o", str(tmp_path / "m"), "--isl", "8", "--osl", "8", "--json"]
    done = CliRunner().invoke(profile, [*args, "--requests-per-user", "2"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["backend"] == "onnxruntime"
    assert printed["ratio"]["best"] > 0
    assert printed["predicted_ratio"] > 0
    assert (tmp_path / "m" / "hybrid" / "result.json").is_file()
    assert "In miniature" in (tmp_path / "m" / "report.html").read_text()


@pytest.mark.slow
def test_the_prediction_is_within_a_quarter(tmp_path):
    done = CliRunner().invoke(profile, ["miniature", "-o", str(tmp_path / "m"), "--json"])
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["predicted_ratio"] == pytest.approx(printed["ratio"]["best"], rel=0.25)


def test_an_interrupt_ends_it(tmp_path, monkeypatch):
    """Half a pair says nothing: the second model is not measured; what there is, is handed on."""
    ended = []

    def interrupted(*args):
        ended.append(args)
        return simulate(1, status=Status.INTERRUPTED)

    monkeypatch.setattr("nemotrt.profiles.miniature.measurement._build", lambda *args: None)
    monkeypatch.setattr("nemotrt.profiles.miniature.measurement.InProcessTarget", lambda *a, **k: a)
    monkeypatch.setattr("nemotrt.profiles.runs.measure.run", interrupted)
    kept = []
    with pytest.raises(KeyboardInterrupt):
        measure_miniature(
            tmp_path,
            isl=8,
            osl=16,
            requests_per_user=2,
            on_result=lambda name, result: kept.append((name, result.status)),
        )
    assert len(ended) == 1
    assert kept == [("hybrid", Status.INTERRUPTED)]


def test_sigterm_leaves_the_runs_so_far(tmp_path):
    """Sent while the first side is measured: its folder has what had come in."""
    output = tmp_path / "m"
    command = [sys.executable, "-c", SMALL_MINIATURE, str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "under load\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 130
    assert read_result(output / "hybrid").status is Status.INTERRUPTED
    assert not (output / "baseline").exists()


SMALL_MINIATURE = """
import sys
from nemotrt.profiles.miniature import measurement, pair
from nemotrt.cli import main
pair.HIDDEN_SIZE, pair.VOCAB_SIZE = 64, 256
from nemotrt.profiles.load import driver
finish = driver.check_complete
def told(exchange):
    if exchange.index == 12:
        print("under load", flush=True)
    finish(exchange)
driver.check_complete = told
size = ["--isl", "8", "--osl", "64", "--requests-per-user", "500"]
main(["profile", "miniature", "-o", sys.argv[1], "-q", *size])
"""
