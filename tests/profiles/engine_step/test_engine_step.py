"""`nemotrt profile engine`: work from shapes by hand, times that add up, and refusals."""

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.cli import main
from nemotrt.engines.backends.native.library.machine_limits import MachineLimits, measure_limits
from nemotrt.engines.backends.native.program.options import NativeOptions, StateFormat
from nemotrt.engines.backends.native.program.program import OperationKind, read_program
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.profiles.engine_step.load import Load
from nemotrt.profiles.engine_step.measurement import StepProfile
from nemotrt.profiles.engine_step.operators import TimedOperator
from nemotrt.profiles.engine_step.roofline import least_seconds
from nemotrt.profiles.engine_step.table import profile_table
from nemotrt.profiles.engine_step.work import Work, work_of
from nemotrt.profiles.hardware.busy import MachineUse

LIMITS = Limits(max_batch_size=4, max_seq_len=64, chunk_tokens=16)
SOME = (OperationKind.SCAN, OperationKind.CONV, OperationKind.ATTENTION, OperationKind.EMBED)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("e") / "engine"
    spec = BuildSpec("native", precision=Precision.INT8_WO, limits=LIMITS)
    build_engine(TINY_MODELS["tiny"], target, spec)
    return target


def run(folder: Path, *options: str) -> dict:
    result = CliRunner().invoke(main, ["profile", "engine", str(folder), "--json", *options])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_work_follows_from_the_shapes(folder: Path) -> None:
    program = read_program(folder)
    config = json.loads((folder / "config.json").read_text())
    load = Load(batch=3, held=10, tokens=1)
    scan = next(op for op in program.operations if op.kind is OperationKind.SCAN)
    elements = config["mamba_num_heads"] * config["mamba_head_dim"] * config["ssm_state_size"]
    assert work_of(program, scan, load).update_bytes == 2 * 3 * elements * 4
    assert work_of(program, scan, load).float_ops == 6 * 3 * elements
    attention = next(op for op in program.operations if op.kind is OperationKind.ATTENTION)
    kv_width = config["num_key_value_heads"] * config["head_dim"]
    q_width = config["num_attention_heads"] * config["head_dim"]
    found = work_of(program, attention, load)
    assert found.read_bytes == 3 * 11 * 2 * kv_width * 4, "keys and values of 11 tokens each"
    assert found.float_ops == 3 * 11 * 2 * 2 * q_width
    head = program.operations[-1]
    found = work_of(program, head, Load(batch=3, held=0, tokens=16), num_passes=2)
    weights = config["vocab_size"] * config["hidden_size"]
    assert found.read_bytes == weights, "only the last tokens reach the head"
    assert (found.int16_ops, found.float_ops) == (2 * 3 * weights, 0)


@pytest.mark.parametrize(("state", "width"), [("float32", 4), ("float16", 2)])
def test_states_count_the_bytes_that_they_have(state: str, width: int, tmp_path: Path) -> None:
    """3 sequences, each state read and written: 6 heads x 80 x 128 elements a Mamba layer.

    The convolution's window of 3 tokens is float32 in both, and so are the caches; an embedding's
    row is 256 bfloat16 numbers.
    """
    spec = BuildSpec("native", None, Precision.BF16, LIMITS, NativeOptions(StateFormat(state)))
    build_engine(TINY_MODELS["tiny"], tmp_path / "e", spec)
    program = read_program(tmp_path / "e")
    first = {kind: next(op for op in program.operations if op.kind is kind) for kind in SOME}
    load = Load(batch=3, held=10)
    found = {kind: work_of(program, operation, load) for kind, operation in first.items()}
    assert found[OperationKind.SCAN].update_bytes == 2 * 3 * 6 * 80 * 128 * width
    conv_dim = 6 * 80 + 2 * 2 * 128
    assert found[OperationKind.CONV].update_bytes == 2 * 3 * 3 * conv_dim * 4
    assert found[OperationKind.ATTENTION].read_bytes == 3 * 11 * 2 * 2 * 64 * 4
    assert found[OperationKind.EMBED].read_bytes == 3 * 256 * 2


def test_the_roofline_is_the_slower_of_memory_and_arithmetic() -> None:
    limits = MachineLimits(1, 10.0, 20.0, 100.0, 200.0)
    assert least_seconds(Work(read_bytes=20, update_bytes=20, float_ops=100), limits) == (
        3.0,
        "memory",
    )
    assert least_seconds(Work(read_bytes=10, float_ops=100, int16_ops=200), limits) == (
        2.0,
        "arithmetic",
    )


def test_limits_are_measured() -> None:
    """Two threads compute faster than a byte a second, and madds of int16 beat those of floats."""
    limits = measure_limits(1, 1 << 20)
    assert limits.read_bytes_per_s > 1e8 and limits.update_bytes_per_s > 1e8
    assert limits.int16_ops_per_s > limits.float_ops_per_s / 4 > 1e7


@pytest.mark.parametrize("options", [(), ("--batch", "4", "--held", "5"), ("--tokens", "16")])
def test_every_operation_is_in_the_table_and_times_add_up(
    folder: Path, options: tuple[str, ...]
) -> None:
    found = run(folder, "--held", "3", "--steps", "3", "--threads", "1", *options)
    names = {operator["name"] for operator in found["operators"]}
    assert {"in_proj", "up_proj", "scan", "attention", "lm_head"} <= names
    assert "q_proj, k_proj, v_proj" in names, "they run without waiting for each other"
    num_operations = sum(operator["num_operations"] for operator in found["operators"])
    assert num_operations == len(read_program(folder).operations)
    inside_ms = sum(operator["ms"] for operator in found["operators"])
    assert inside_ms > 0 and found["step_ms"] > 0
    assert all(operator["ms"] >= 0 for operator in found["operators"])
    assert found["limits"]["num_threads"] == 1
    assert found["roofline_ms"] == pytest.approx(
        sum(operator["roofline_ms"] for operator in found["operators"])
    )


def test_the_table_names_operators_and_limits(folder: Path) -> None:
    result = CliRunner().invoke(
        main, ["profile", "engine", str(folder), "--held", "1", "--steps", "1"]
    )
    assert result.exit_code == 0, result.output
    for word in ("in_proj", "roofline", "GB/s", "outside the library", "Measured here"):
        assert word in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--batch", "5"), "4 slots, not 5"),
        (("--tokens", "17"), "16 tokens per slot, not 17"),
        (("--held", "60"), "need a max_seq_len of"),
    ],
)
def test_a_load_beyond_the_limits_is_refused(
    folder: Path, options: tuple[str, ...], message: str
) -> None:
    result = CliRunner().invoke(main, ["profile", "engine", str(folder), "--held", "1", *options])
    assert result.exit_code == 2
    assert message in result.output


def test_another_backend_is_refused(tmp_path: Path) -> None:
    build_engine(TINY_MODELS["tiny"], tmp_path / "e", BuildSpec(limits=LIMITS))
    result = CliRunner().invoke(main, ["profile", "engine", str(tmp_path / "e")])
    assert result.exit_code == 2
    assert "--backend native" in result.output


def test_what_holds_a_step_below_its_roofline_is_named() -> None:
    """Of 10 ms, 6 are the roofline's: the linear loses 1 of 6 ms, the scan 2 of 3."""
    operators = tuple(
        TimedOperator(name, 1, ms, ms / 10, least_ms, "memory", 1.0, 1.0)
        for name, ms, least_ms in (("in_proj", 6.0, 5.0), ("scan", 3.0, 1.0))
    )
    use = MachineUse(
        num_cores=1, others_cores=0.0, stolen_share=0.0, wait_share=0.0, is_engine_here=True
    )
    limits = MachineLimits(1, 1e9, 1e9, 1e9, 1e9)
    parts = {"load": Load(1, 0, 1), "num_steps": 1, "limits": limits, "operators": operators}
    more = {"weights": None, "states": None, "num_memory_nodes": 0, "machine_use": use}

    def profile(step_ms: float, outside_ms: float = 1.0) -> StepProfile:
        times = {"step_ms": step_ms, "roofline_ms": 6.0, "outside_ms": outside_ms}
        return StepProfile(schema_version=1, tokens_per_s=1.0, **times, **parts, **more)  # type: ignore[arg-type]

    held = profile(10.0).held_by
    assert held is not None and held.name == "scan"
    assert profile(7.4).held_by is None, "81 %"
    assert "held up by scan (2.00 ms more" in text_of(profile(10.0))
    assert "held up outside the library (3.00 ms)" in text_of(profile(10.0, 3.0))
    assert "held up" not in text_of(profile(7.4))


def text_of(found: StepProfile) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(profile_table(found))
    return console.export_text()
