"""The CPU as a device: the probe on real engines, and what its timings are taken to mean."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.build.backend_options import default_backend
from nemotrt.engines.backends.native import export as native
from nemotrt.engines.backends.onnxruntime import engine as onnxruntime
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.tiny.random_checkpoint import write_checkpoint
from nemotrt.errors import ChildProcessFailedError, ConfigError
from nemotrt.profiles.hardware.gpu_profile import GpuProfile
from nemotrt.profiles.planning.answers import options
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.command import plan
from nemotrt.profiles.planning.cpu import cpu_probe, this_machine
from nemotrt.profiles.planning.cpu.cpu_rates import Timings, cpu_profile
from nemotrt.profiles.planning.cpu.probe_models import PROBE_MODELS
from nemotrt.profiles.planning.cpu.rates_profile import Machine
from nemotrt.profiles.planning.memory.weights import num_parameters, weights_bytes
from nemotrt.profiles.planning.sources.known_models import load_model
from nemotrt.profiles.planning.time.engine_profile import load_engine
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.operators import decode_call, prefill_call
from nemotrt.profiles.planning.time.roofline import Scenario, roofline
from nemotrt.profiles.planning.time.step import ShardedModel, step_time
from support.plan_models import SEEN

MACHINE = Machine("a CPU", 65_536, 32.0)
LOADS = {
    "one": decode_call(1, 1),
    "batch": decode_call(cpu_probe.BATCH_SIZE, 1),
    "prompt": prefill_call(1, 0, cpu_probe.GEMM_ROWS),
}


def timings_on(gpu: GpuProfile, precision: Precision) -> Timings:
    """The probe's timings on a machine that behaves as the planner says."""
    formats = Formats(precision, NumberFormat.FP32, NumberFormat.FP32, NumberFormat.FP32)
    on = roofline(gpu, load_engine("onnxruntime"), Scenario.BEST)

    def seconds(name: str, load: str) -> float:
        sharded = ShardedModel(parse_model_config(PROBE_MODELS[name]), formats)
        return step_time(sharded, on, LOADS[load]).total / 1e3

    return {name: {load: seconds(name, load) for load in SEEN[name]} for name in SEEN}


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from([Precision.FP32, Precision.BF16, Precision.INT8_WO]),
    st.floats(5, 500),
    st.floats(1, 20),
    st.floats(0.1, 0.9),
    st.floats(0.1, 10),
)
def test_rates_are_recovered(
    precision: Precision, bandwidth: float, intensity: float, share: float, launch_us: float
) -> None:
    tflops = bandwidth * intensity / 1e3
    seen = cpu_profile(MACHINE, "onnxruntime", precision, SEEN)
    raw = seen.model_dump()
    raw["datasheet"]["bandwidth_gb_per_s"] = bandwidth
    raw["datasheet"]["cache_bandwidth_gb_per_s"] = 3 * bandwidth
    raw["datasheet"]["tflops"] = dict.fromkeys(raw["datasheet"]["tflops"], tflops)
    raw["corrections"]["ssm_compute"] = {"low": 0.01, "best": share, "high": 1, "source": "-"}
    raw["measured_with"]["launch_overhead_us"] = launch_us
    true = GpuProfile(**raw)
    timings = timings_on(true, precision)
    again = cpu_profile(MACHINE, "onnxruntime", precision, timings)
    assert again.datasheet.bandwidth_gb_per_s == pytest.approx(bandwidth, rel=0.05)
    for name, rate in again.datasheet.tflops.items():
        assert rate == pytest.approx(true.datasheet.tflops[name], rel=0.05)
    # What matters: the probe's own steps are predicted.
    replayed = timings_on(again, precision)
    for name, loads in timings.items():
        for load, seconds in loads.items():
            assert replayed[name][load] == pytest.approx(seconds, rel=0.1)


def test_rates_by_hand() -> None:
    gpu = cpu_profile(MACHINE, "onnxruntime", Precision.FP32, SEEN)
    # 398 MB in about 3.8 of 4.5 ms, 7 more rows of 199 MFLOP in 4.4 ms, 64 of 132 in 20 ms.
    assert gpu.datasheet.bandwidth_gb_per_s == pytest.approx(398 / 3.8, rel=0.1)
    assert gpu.datasheet.tflops["fp32"] == pytest.approx(64 * 0.132 / 20, rel=0.1)
    decode, states = gpu.corrections.gemm_compute_decode, gpu.corrections.ssm_compute
    assert decode is not None and states is not None
    assert decode.best * gpu.datasheet.tflops["fp32"] == pytest.approx(7 * 0.199 / 4.4, rel=0.1)
    # A sequence's 7.9 MFLOP in about 0.13 of 0.4 ms, beside weights, kernels and 11 MB in a cache.
    rate = states.best * gpu.datasheet.tflops["fp32"]
    assert rate == pytest.approx(7.9e-6 / 0.13e-3, rel=0.15)
    # 8 times as many take 1.05 of 2.9 ms, weights and kernels 0.5: 89 MB in 1.35 ms from memory.
    moving = gpu.corrections.ssm_bandwidth.best * gpu.datasheet.bandwidth_gb_per_s
    assert moving == pytest.approx(89 / 1.35, rel=0.15)


def test_states_that_move_faster_than_weights_leave_the_weights_their_rate() -> None:
    """What is updated in place moves twice for one look-up; a share can't be above 1."""
    slow = cpu_profile(MACHINE, "onnxruntime", Precision.FP32, SEEN)
    states = {"one": 0.40e-3, "batch": 2.3e-3}
    fast = cpu_profile(MACHINE, "onnxruntime", Precision.FP32, {**SEEN, "states": states})
    assert fast.corrections.ssm_bandwidth.best == 1.0
    for end in ("bandwidth_gb_per_s", "cache_bandwidth_gb_per_s"):
        one, other = (
            gpu.corrections.gemm_bandwidth.best * getattr(gpu.datasheet, end)
            for gpu in (slow, fast)
        )
        assert other == pytest.approx(one, rel=0.05)
    timings = timings_on(fast, Precision.FP32)
    assert timings["states"]["batch"] == pytest.approx(2.3e-3, rel=0.05)


def test_noise_that_turns_the_timings_round_still_gives_a_profile() -> None:
    """No rate is beyond what a tenth of its step would allow."""
    linears = {"one": 7e-3, "batch": 6e-3, "prompt": 5e-3}
    timings = {
        **SEEN,
        "linears": linears,
        "cached": {"one": 1e-6},
        "states": {"one": 1e-6, "batch": 1e-6},
    }
    gpu = cpu_profile(MACHINE, "onnxruntime", Precision.FP32, timings)
    assert gpu.datasheet.bandwidth_gb_per_s < 2 * 10 * 268e6 / 7e-3 / 1e9 * 1.05
    assert gpu.datasheet.tflops["fp32"] < 10 * 64 * 134e6 / 5e-3 / 1e12 * 1.05


@pytest.mark.parametrize("backend", ["onnxruntime", "native"])
def test_the_probe_times_real_engines(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    small = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "mamba_num_heads": 2,
        "mamba_head_dim": 16,
        "n_groups": 2,
    }
    models = {name: {**model, **small} for name, model in PROBE_MODELS.items()}
    monkeypatch.setattr(cpu_probe, "PROBE_MODELS", models)
    monkeypatch.setattr(cpu_probe, "MEASURE_S", 0.01)
    monkeypatch.setattr(cpu_probe, "LIMITS", Limits(cpu_probe.BATCH_SIZE, 128, 64))
    found = cpu_probe.measure(backend, Precision.FP32)
    assert {name: set(loads) for name, loads in found.items()} == {
        name: set(loads) for name, loads in SEEN.items()
    }
    assert all(1e-7 < seconds < 10 for loads in found.values() for seconds in loads.values())


class Steps:
    """An engine that does nothing, and counts how often."""

    limits = cpu_probe.LIMITS

    def __init__(self) -> None:
        self.num = 0

    def held_tokens(self, slot: int) -> int:
        return 0

    def step(self, feeds: Any) -> None:
        self.num += 1


def test_the_cache_is_filled_before_each_step_and_out_of_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu_probe, "MEASURE_S", 0.05)
    engine: Any = Steps()
    filled = []
    seconds = cpu_probe.fastest_s(
        engine, [0], 1, 1, lambda: (filled.append(engine.num), time.sleep(0.005))
    )
    assert seconds < 0.004
    assert filled == list(range(engine.num)) and 1 < engine.num <= 11


def test_the_filler_reads_more_than_the_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    for cache_mib, num_bytes in ((3.0, 6 * 2**20), (None, 64 * 2**20)):
        monkeypatch.setattr(cpu_probe, "last_level_cache_mib", lambda found=cache_mib: found)
        assert 8 * cpu_probe.cache_filler()() == num_bytes  # it sums ones of 8 bytes


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    calls = []
    options.this_machine.cache_clear()

    def probe(engine: str, precision: Precision) -> Timings:
        calls.append((engine, precision.value))
        return SEEN

    monkeypatch.setattr(this_machine, "_probe", probe)
    monkeypatch.setattr(this_machine, "available_mib", lambda: 65_536)
    yield calls
    options.this_machine.cache_clear()


def run(*args: str) -> Any:
    return CliRunner().invoke(plan, [*args, "--isl", "64", "--osl", "64", "--json"])


def test_plan_on_this_machine(probed: list[tuple[str, str]]) -> None:
    result = run("nemotron-nano-9b-v2", "--gpu", "this-machine", "--batch-size", "1",
                 "--precision", "fp32", "--baseline", "qwen3-8b")  # fmt: skip
    assert result.exit_code == 0, result.output
    engine, _ = default_backend(None)  # what a build takes here
    assert f'"engine": "{engine}"' in result.stdout and '"kv_dtype": "fp32"' in result.stdout
    assert '"joules_per_token": null' in result.stdout  # nobody sourced this machine's power
    assert probed == [(engine, "fp32")]  # once, also for the baseline


def test_any_precision_is_measured_each(
    probed: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(this_machine, "available_mib", lambda: 64)  # few fit: a short search
    result = run("tiny", "--gpu", "this-machine", "--engine", "native", "--precision", "any")
    assert result.exit_code == 0, result.output
    assert probed == [("native", name) for name in ("fp32", "bf16", "int8-wo")]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--engine", "vllm"], "does not run on this machine's CPU; choose onnxruntime, native"),
        (["--precision", "fp8"], "no CPU engine runs fp8; choose fp32, bf16, int8-wo"),
    ],
)
def test_what_no_cpu_engine_does(probed: list[Any], args: list[str], text: str) -> None:
    result = run("tiny", "--gpu", "this-machine", *args)
    assert result.exit_code == 2 and text in result.stderr
    assert probed == []


def test_a_saved_profile_serves_what_it_was_measured_with(
    tmp_path: Path, probed: list[Any]
) -> None:
    path = tmp_path / "cpu.yaml"
    native = ("--engine", "native", "--precision", "fp32")
    saved = run("tiny", "--gpu", "this-machine", *native, "--output", str(path))
    assert saved.exit_code == 0, saved.output
    options = DeploymentOptions("tiny", str(path), Precision.FP32, isl=64, osl=64)
    assert deploy(options).engine.name == "native"
    with pytest.raises(ConfigError, match="measured with native fp32; onnxruntime fp32 needs"):
        deploy(options.at(engine="onnxruntime"))
    with pytest.raises(ConfigError, match="engine vllm does not run on this-machine, a cpu"):
        deploy(options.at(engine="vllm"))
    with pytest.raises(ConfigError, match="engine native does not run on a10g, a gpu"):
        deploy(options.at(gpu="a10g", engine="native", precision=Precision.BF16))


def test_a_failing_probe_is_a_child_process_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_machine, "PROBE", "no.such.module")
    with pytest.raises(ChildProcessFailedError, match="failed with code 1"):
        this_machine.measure_this_machine(None, Precision.FP32)


EXPERTS = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
}


def num_nodes(folder: Path, pattern: str) -> int:
    """Nodes of the graph of a model that ONNX Runtime runs, after its own optimizations."""
    config = {**PROBE_MODELS["small"], **EXPERTS, "hybrid_override_pattern": pattern}
    write_checkpoint(folder / "checkpoint", config)
    exported, optimized = folder / "engine", folder / "optimized.onnx"
    exported.mkdir()
    limits = Limits(1, 64, 16)
    onnxruntime.export(open_checkpoint(folder / "checkpoint"), exported, limits, Precision.FP32)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = 3  # it warns that such a file is for this machine only
    graph = str(exported / onnxruntime.GRAPH_FILE)
    ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return len(onnx.load(str(optimized), load_external_data=False).graph.node)


@pytest.mark.parametrize(
    ("letter", "kind"), [("M", "mamba"), ("-", "mlp"), ("*", "attention"), ("E", "moe")]
)
def test_kernels_are_the_graphs_nodes(tmp_path: Path, letter: str, kind: str) -> None:
    one, two = (num_nodes(tmp_path / name, letter * len(name)) for name in ("a", "aa"))
    launches = load_engine("onnxruntime").launches
    assert launches is not None
    inside = 4 * launches.expert if letter == "E" else 0
    assert getattr(launches, kind) + inside == two - one
    assert launches.step == pytest.approx(2 * one - two, abs=1)


def test_16_bit_weights_take_four_bytes_in_onnx_runtime(probed: list[Any]) -> None:
    model = load_model("qwen3-8b")
    options = DeploymentOptions("qwen3-8b", "this-machine", Precision.BF16, engine="onnxruntime")
    planned = deploy(options).fit.budget.weights_bytes
    embeddings = model.vocab_size * model.hidden_size
    assert planned == pytest.approx(4 * num_parameters(model) - 2 * embeddings, rel=1e-3)
    native = deploy(options.at(engine="native")).fit.budget.weights_bytes
    assert native == pytest.approx(2 * num_parameters(model), rel=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8-wo"])
def test_planned_weights_are_those_of_a_native_engine(tmp_path: Path, precision: str) -> None:
    """Its file has them all, the head in the linears' format, and rounds rows up to panels."""
    config = {**PROBE_MODELS["small"], "hidden_size": 512, "vocab_size": 8192}
    write_checkpoint(tmp_path / "c", config)
    (tmp_path / "e").mkdir()
    native.export(
        open_checkpoint(tmp_path / "c"), tmp_path / "e", Limits(1, 64, 16), Precision(precision)
    )
    stored = max(path.stat().st_size for path in (tmp_path / "e").iterdir())
    formats = load_engine("native").formats(
        Precision(precision), NumberFormat.FP32, NumberFormat.FP32
    )
    planned = weights_bytes(parse_model_config(config), formats)
    assert stored == pytest.approx(planned, rel=0.02)
