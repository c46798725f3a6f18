"""`nemotrt plan` and its subcommands, run as a user does."""

import csv
import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from nemotrt.engines.backends import registry
from nemotrt.profiles.hardware.gpu_profile import load_gpu
from nemotrt.profiles.planning.command import plan
from nemotrt.profiles.planning.measured.rows import MeasuredRow, read_rows
from nemotrt.profiles.planning.measured.validation import Validation
from nemotrt.profiles.planning.time.engine_profile import known_engines, load_engine

NANO = "nemotron-nano-9b-v2"


def run(*args: str) -> Result:
    return CliRunner().invoke(plan, list(args))


def planned(*args: str) -> dict[str, Any]:
    result = run(NANO, *args, "--json")
    assert result.exit_code == 0, result.output
    raw: dict[str, Any] = json.loads(result.stdout)
    return raw


def test_the_claim_on_one_a10g() -> None:
    raw = planned("--baseline", "qwen3-8b")
    assert (raw["max_batch_size"], raw["baseline"]["max_batch_size"]) == (7, 1)
    assert 5.7 <= raw["ratio"]["best"] <= 6.9
    assert raw["ratio"]["low"] <= raw["ratio"]["best"] <= raw["ratio"]["high"]
    assert "holds 7 sequences, qwen3-8b 1: memory" in raw["reason"]
    narrow = planned("--baseline", "qwen3-8b", "--ssm-dtype", "bf16")
    assert narrow["max_batch_size"] == 8
    # attention reads a slot's whole cache, which costs the baseline more
    assert 5.7 <= narrow["ratio"]["best"] <= 7.1


def test_json_has_the_promised_keys() -> None:
    raw = planned("--baseline", "qwen3-8b")
    keys = (
        "schema_version", "model", "gpu", "precision", "isl", "osl", "weights_bytes",
        "kv_cache_bytes_per_token", "ssm_state_bytes_per_request", "conv_state_bytes_per_request",
        "workspace_bytes", "max_batch_size", "limited_by", "batch_size", "decode_step_ms",
        "ttft_ms", "tpot_ms", "tokens_per_s", "max_seq_len_at_batch_1", "baseline", "ratio",
        "reason",
    )  # fmt: skip
    assert set(keys) <= set(raw)
    assert {"weights", "attention", "ssm", "overhead", "total"} <= set(raw["decode_step_ms"])
    assert set(raw["tokens_per_s"]) == set(raw["ratio"]) == {"low", "best", "high"}
    assert raw["limited_by"] == "memory"
    step = dict(raw["decode_step_ms"])
    assert step.pop("total") == pytest.approx(sum(step.values()))


@pytest.mark.parametrize(
    ("args", "key", "value"),
    [
        (["--gpu", "h100", "--precision", "fp8"], "kv_dtype", "bf16"),
        (["--gpu", "h100", "--precision", "fp8", "--engine", "nemotrt"], "kv_dtype", "fp8"),
        (["--gpu", "h100", "--precision", "fp8", "--kv-dtype", "bf16"], "kv_dtype", "bf16"),
        (["--precision", "int8-wo"], "precision", "int8-wo"),
        (["--isl", "100"], "isl", 100),
        (["--osl", "10"], "osl", 10),
        (["--batch-size", "3"], "batch_size", 3),
        (["--concurrency", "3"], "batch_size", 3),
        (["--concurrency", "300"], "batch_size", 7),
        (["--engine", "tensorrt-llm"], "engine", "tensorrt-llm"),
        (["--memory-utilization", "0.9", "--engine", "nemotrt"], "max_batch_size", 5),
        (["--reserve-gib", "1"], "max_batch_size", 5),
        (["--admission", "mean"], "admission", "mean"),
        (["--max-num-tokens", "512"], "max_num_tokens", 512),
        (["--gpu", "h100", "--tp", "2"], "tp", 2),
        (["--gpu", "a100-80-sxm"], "gpu", "a100"),
    ],
)
def test_options_reach_the_plan(args: list[str], key: str, value: object) -> None:
    assert planned(*args)[key] == value


def test_table_says_what_limits() -> None:
    result = run(NANO, "--baseline", "qwen3-8b", "--curve", "--usd-per-hour", "1.0")
    assert result.exit_code == 0
    for text in ("7 (limited by memory)", "16.56 GiB", "16,384 B", "135.0 MiB", "Why:", "Ratio"):
        assert text in result.stdout
    assert "predicted" in result.stdout and "Throughput and latency" in result.stdout


def test_curve_in_json() -> None:
    raw = planned("--curve")
    users = [point["concurrency"] for point in raw["curve"]]
    assert users == [1, 2, 4, 7, 14]
    rates = [point["tokens_per_s"]["best"] for point in raw["curve"]]
    assert rates == sorted(rates)


def test_latency_target() -> None:
    raw = planned("--gpu", "h100", "--precision", "any", "--tpot-ms", "15")
    assert raw["tpot_ms"] <= 15
    assert raw["precision"] in ("fp8", "fp8-dynamic", "int8-sq")
    more = planned("--gpu", "h100", "--precision", raw["precision"], "--batch-size",
                   str(raw["batch_size"] + 1))  # fmt: skip
    assert more["tpot_ms"] > 15


@pytest.mark.parametrize(
    ("args", "code", "text"),
    [
        ([], 2, "such as `nemotrt plan nemotron-nano-9b-v2 --gpu a10g`"),
        (["no-such-model"], 2, "unknown model"),
        (["--gpu", "h100"], 2, "Missing argument"),
        ([NANO, "--gpu", "h10"], 2, "did you mean 'h100'"),
        ([NANO, "--precision", "fp8"], 2, "no FP8 tensor cores"),
        ([NANO, "--tp", "3"], 2, "does not divide"),
        ([NANO, "--batch-size", "2", "--tpot-ms", "5"], 2, "cannot be combined"),
        ([NANO, "--calibrate", "."], 2, "--output"),
        ([NANO, "--plot", "a.pdf"], 2, ".html or a .png"),
        ([NANO, "--write-limits", "/no/such/folder/l.yaml"], 2, "not a folder"),
        ([NANO, "--batch-size", "99"], 4, "GiB are missing"),
        (["nemotron-nano-12b-v2"], 4, "GiB are missing"),
        (["/no/such/config.json"], 2, "does not exist; known models: llama-3-8b"),
        (["/"], 2, "has no config.json"),
        ([NANO, "--output", "x.yaml"], 2, "--output is what --calibrate or"),
        ([NANO, "--isl", "0"], 2, "Usage: plan MODEL [OPTIONS] | COMMAND"),
        ([NANO, "--tp", "5"], 2, "does not divide 8 KV heads"),
        ([NANO, "--gpu", "a10g", "--engine", "native"], 2, "does not run on a10g, a gpu"),
        ([NANO, "--tpot-ms", "1"], 4, "cannot be met"),
        ([NANO, "--ttft-ms", "5000", "--concurrency", "500"], 4, "of them the wait for a slot"),
        (["sweep", NANO, "--lengths", "1x2"], 2, "ISL:OSL"),
        (["sweep", "none", "--lengths", "1x2", "--plot", "a.pdf"], 2, ".html or a .png"),
    ],
)
def test_faults(args: list[str], code: int, text: str) -> None:
    result = run(*args)
    assert result.exit_code == code, result.output
    assert text in result.stderr


def test_baseline_in_fp8() -> None:
    raw = planned("--gpu", "h100", "--precision", "fp8", "--baseline", "qwen3-8b")
    assert raw["baseline"]["precision"] == "fp8"
    assert raw["ratio"]["best"] > 1


def test_equal_batches_leave_the_step_to_decide() -> None:
    raw = planned("--gpu", "h100", "--baseline", "qwen3-8b", "--concurrency", "8")
    assert raw["baseline"]["batch_size"] == raw["batch_size"] == 8
    assert "both run 8 sequences" in raw["reason"]


def test_a_baseline_that_does_not_fit_is_said() -> None:
    raw = planned("--baseline", "nemotron-nano-12b-v2")
    assert raw["baseline"] is None and raw["ratio"] is None
    assert "does not run" in raw["reason"]


def test_limits_file(tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    assert run(NANO, "--write-limits", str(path), "--dry-run").exit_code == 0
    assert not path.exists()
    assert f"wrote {path}" in run(NANO, "--write-limits", str(path)).stderr
    limits = yaml.safe_load(path.read_text())
    assert (limits["max_batch_size"], limits["max_seq_len"]) == (7, 24_576)
    assert run(NANO, "--write-limits", str(path)).exit_code == 2
    assert run(NANO, "--write-limits", str(path), "--force", "--quiet").stderr == ""


def test_config_file_and_flags_over_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("gpu: h100\nisl: 64\nmemory-utilization: 0.9\n")
    raw = planned("--config", str(path), "--isl", "32")
    assert (raw["gpu"], raw["isl"], raw["memory_utilization"]) == ("h100", 32, 0.9)
    path.write_text("model: qwen3-8b\njson: true\nwrite-limits: limits.yaml\ndry_run: true\n")
    assert json.loads(run("--config", str(path)).stdout)["model"] == "qwen3-8b"
    path.write_text("gpus: h100\n")
    result = run(NANO, "--config", str(path))
    assert result.exit_code == 2 and "did you mean 'gpu'" in result.stderr


def svgs(path: Path) -> list[ElementTree.Element]:
    text = path.read_text()
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # nothing is fetched
    parts = text.split("<svg")[1:]
    return [ElementTree.fromstring("<svg" + part.split("</svg>")[0] + "</svg>") for part in parts]


def test_plot_is_one_page_with_four_charts(tmp_path: Path) -> None:
    path = tmp_path / "plan.html"
    assert run(NANO, "--baseline", "qwen3-8b", "--plot", str(path)).exit_code == 0
    charts = ["".join(svg.itertext()) for svg in svgs(path)]
    titles = ("Memory of one GPU", "Throughput", "Ratio of throughputs", "Roofline of a decode")
    for title, text in zip(titles, charts, strict=True):
        assert title in text
    assert "lm_head" in charts[3] and "KV cache" in charts[0]


def test_png_needs_matplotlib(tmp_path: Path) -> None:
    path = tmp_path / "plan.png"
    result = run(NANO, "--plot", str(path))
    if result.exit_code == 3:
        assert "pip install 'nemotrt[plots]'" in result.stderr
    else:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_sweep_to_csv_and_heat_map(tmp_path: Path) -> None:
    args = ["sweep", NANO, "--gpu", "a10g", "--gpu", "h100", "--precision", "bf16",
            "--precision", "fp8", "--lengths", "1024:8192", "--baseline", "qwen3-8b"]  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(run(*args).stdout)))
    assert [(r["gpu"], r["precision"]) for r in rows] == [
        ("a10g", "bf16"), ("a10g", "fp8"), ("h100", "bf16"), ("h100", "fp8"),
    ]  # fmt: skip
    assert "FP8" in rows[1]["problem"] and rows[1]["tokens_per_s"] == ""
    assert float(rows[0]["ratio"]) > 1
    path, plot = tmp_path / "sweep.csv", tmp_path / "sweep.html"
    result = run(*args, "--csv", str(path), "--plot", str(plot))
    assert result.exit_code == 0 and result.stdout == ""
    assert len(path.read_text().splitlines()) == 5
    assert "Tokens/s, 1024 in / 8192 out" in "".join(svgs(plot)[0].itertext())
    assert run(*args, "--csv", str(path)).exit_code == 2
    assert json.loads(run(*args, "--json").stdout)["rows"][0]["gpu"] == "a10g"


def write_run(path: Path, tokens_per_s: float | None, **changes: Any) -> None:
    """Write a result.json as `nemotrt profile` would, of 4 users of 8k in / 16k out."""
    workload = {"isl": 8192, "osl": 16384, "num_requests": 8, "concurrency": 4, "num_warmup": 4,
                "arrival": "closed", "requests_per_s": 0.0, "language": "en", "seed": 0,
                "slos": {}, "trace": []}  # fmt: skip
    metric = {"title": "", "unit": "tokens/s", "formula": "", "source": "", "is_better_high": True,
              "value": tokens_per_s,
              "not_computable": "too short" if tokens_per_s is None else None}  # fmt: skip
    predicted = {"gpu": "a10g", "model": NANO, "precision": "bf16", "batch_size": 4, "notes": [],
                 "tokens_per_s_low": 1, "tokens_per_s": 1, "tokens_per_s_high": 1, "ttft_ms": 1,
                 "tpot_ms": 1, "decode_step_ms": {}, "bound_by": "", "limited_by": ""}  # fmt: skip
    run = {"status": "complete", "reason": "", "started_at": "2026-01-01T00:00:00",
           "clock_start_s": None, "duration_s": 1.0, "target": {"kind": "openai"},
           "workload": workload, "window_s": None, "metrics": {"tokens_per_s": metric},
           "driver": {"cpu_share": 0.1, "loop_lag_p99_ms": 0.1, "is_limit": False},
           "machine": {}, "notes": [], "requests": [], "steps": [],
           "prediction": predicted}  # fmt: skip
    path.write_text(json.dumps(run | changes))


def test_calibrate_writes_a_profile(tmp_path: Path) -> None:
    result_file, profile = tmp_path / "result.json", tmp_path / "mine.yaml"
    slower = planned("--batch-size", "4")["tokens_per_s"]["best"] * 0.85
    write_run(result_file, slower)
    args = [NANO, "--calibrate", str(result_file), "--output", str(profile), "--json"]
    summary = json.loads(run(*args).stdout)
    assert summary["mape_after"] < summary["mape_before"] / 2
    best = load_gpu(str(profile)).corrections.gemm_bandwidth
    assert best is not None and best.best < 0.80
    again = planned("--gpu", str(profile), "--batch-size", "4")["tokens_per_s"]["best"]
    assert again == pytest.approx(slower, rel=0.08)
    assert json.loads(run(*args, "--force").stdout)["num_rows"] == 1


@pytest.mark.parametrize(
    ("tokens_per_s", "changes", "code", "text"),
    [
        (9.0, {"status": "failed"}, 1, "its run is failed"),
        (9.0, {"target": {"backend": "native"}}, 1, "it ran on a CPU"),
        (9.0, {"target": {"precision": "fp8"}}, 1, "it ran fp8, not bf16"),
        (None, {}, 2, "not computable: too short"),  # and not the prediction beside it
        (9.0, {"workload": {}}, 1, "no profile result: workload.isl"),
    ],
)
def test_runs_that_cannot_calibrate(
    tmp_path: Path, tokens_per_s: float | None, changes: Any, code: int, text: str
) -> None:
    file = tmp_path / "result.json"
    write_run(file, tokens_per_s, **changes)
    args = [NANO, "--calibrate", str(tmp_path), "--output", str(tmp_path / "mine.yaml")]
    result = run(*args)
    assert result.exit_code == code and text in result.stderr
    assert not (tmp_path / "mine.yaml").exists()


def test_validate_prints_groups(validation: Validation, monkeypatch: pytest.MonkeyPatch) -> None:
    def validate(rows: list[MeasuredRow]) -> Validation:
        assert rows == read_rows()
        return validation

    monkeypatch.setattr("nemotrt.profiles.planning.measured.validation.validate", validate)
    result = run("validate", "--each")
    assert result.exit_code == 0
    assert "stated batch, all | bf16" in result.stdout and "Not scored" in result.stdout
    assert json.loads(run("validate", "--json").stdout)["schema_version"] == 1


@pytest.mark.parametrize("args", [["--help"], ["sweep", "--help"], ["validate", "--help"]])
def test_help(args: list[str]) -> None:
    result = run(*args)
    assert result.exit_code == 0 and "Usage:" in result.stdout


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from nemotrt.profiles.planning.command import plan;"
        f"plan(['{NANO}', '--baseline', 'qwen3-8b', '--json'], standalone_mode=False);"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_sweep_of_unknown_names_is_no_row() -> None:
    for args, text in (
        (["--gpu", "h10"], "did you mean 'h100'"),
        (["--baseline", "qwen3-9b"], "did you mean 'qwen3-8b'"),
    ):
        result = run("sweep", NANO, *args)
        assert result.exit_code == 2 and text in result.stderr and result.stdout == ""


def test_sweep_where_nothing_runs_ends_with_4() -> None:
    result = run("sweep", NANO, "--gpu", "a10g", "--precision", "fp8")
    assert result.exit_code == 4 and "no FP8 tensor cores" in result.stdout
    assert "no combination can run" in result.stderr


def test_sweep_without_precisions_takes_what_the_gpus_have() -> None:
    rows = csv.DictReader(io.StringIO(run("sweep", NANO, "--gpu", "a10g").stdout))
    assert {row["precision"] for row in rows} == {"bf16", "int8-wo", "int8-sq", "int8-dynamic"}


def test_our_engine_holds_nearly_what_the_design_does() -> None:
    """One spare state and a prompt call's scratch; the design in place has neither."""
    built = planned("--engine", "tensorrt")
    assert built["max_batch_size"] == planned("--engine", "nemotrt")["max_batch_size"] == 7
    # 24,576 x 16,384 B of cache; 135 MiB + 1.9 MiB of states, and a 27th of them as a spare.
    assert built["request_bytes"] / 2**20 == pytest.approx(384 + 136.9 * 28 / 27, abs=0.1)
    notes = planned("--engine", "nemotrt", "--gpu", "a100")["notes"]
    assert any("it holds 112 (--engine tensorrt)" in note for note in notes)


# The engine that is planned is the one that is built


@pytest.mark.parametrize("gpu", ["a10g", "a100", "h100", "l4"])
def test_by_default_the_engine_is_what_a_build_makes(gpu: str) -> None:
    assert planned("--gpu", gpu)["engine"] == registry.first_for_gpu()


def test_each_backend_has_its_ratio_and_notes(tmp_path: Path) -> None:
    """In JSON, the table and the page; the default engine's is the plan's own."""
    raw = planned("--baseline", "qwen3-8b")
    names = [backend.name for backend in registry.backends() if not backend.is_cpu]
    assert [one["name"] for one in raw["engines"]] == names
    first = raw["engines"][0]
    assert (first["ratio"], first["max_batch_size"]) == (raw["ratio"], raw["max_batch_size"])
    assert all("not executed" in one["notes"] for one in raw["engines"])
    path = tmp_path / "plan.html"
    result = run(NANO, "--baseline", "qwen3-8b", "--plot", str(path))
    page = path.read_text()
    for one in raw["engines"]:
        ratio = f"{one['ratio']['best']:.2f} ("
        assert ratio in result.stdout and f"ratio {ratio}" in page
        assert f"{one['name']}: " in page and one["name"] in result.stdout
    assert "the tensor peak is 70" in page  # the plan's own notes
    assert planned()["engines"] == []


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--gpu", "a10g", "--precision", "fp8-dynamic", "--gpu", "h100"], "fp8-dynamic"),
        (["--gpu", "h100", "--tp", "2"], "it has no tensor parallelism"),
    ],
)
def test_a_backend_that_does_not_build_it_says_so(args: list[str], text: str) -> None:
    ours = planned("--baseline", "qwen3-8b", *args)["engines"][0]
    assert ours["ratio"] is None and text in ours["notes"][0]


@pytest.mark.parametrize("engine", known_engines())
def test_limits_are_written_for_what_a_backend_builds_alone(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    if load_engine(engine).device == "cpu":
        return
    result = run(NANO, "--gpu", "a100", "--engine", engine, "--write-limits", str(path))
    if engine == "tensorrt-llm":  # fills a share of the memory alone
        assert result.exit_code == 2 and "91 sequences fit and not 114" in result.stderr
        args = ("--batch-size", "91", "--write-limits", str(path))
        run(NANO, "--gpu", "a100", "--engine", engine, *args)
    if engine in registry.names():
        assert yaml.safe_load(path.read_text())["backend"] == engine
    else:
        assert result.exit_code == 2 and f"no backend builds the engine {engine}" in result.stderr
        assert "choose --engine tensorrt or tensorrt-llm" in result.stderr


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--tp", "2"], "has no tensor parallelism"),
        (["--admission", "mean"], "use --admission reserve"),
        (["--ssm-state", "bf16"], "leave out --kv-cache and --ssm-state"),
        (["--kv-cache", "fp8"], "not fp8 and fp32"),
        (["--precision", "fp8-dynamic"], "does not build fp8-dynamic"),
    ],
)
def test_limits_of_what_is_not_built_are_refused(
    args: list[str], text: str, tmp_path: Path
) -> None:
    path = tmp_path / "limits.yaml"
    result = run(NANO, "--gpu", "h100", *args, "--write-limits", str(path))
    assert result.exit_code == 2 and text in result.stderr and not path.exists()
    assert any(text in note for note in planned("--gpu", "h100", *args)["notes"])


def test_ratio_chart_has_the_plans_own_length(tmp_path: Path) -> None:
    path = tmp_path / "plan.html"
    design = ("--baseline", "qwen3-8b", "--engine", "nemotrt")
    run(NANO, *design, "--plot", str(path))
    ratio = planned(*design)["ratio"]["best"]
    titles = [node.text or "" for node in svgs(path)[2].iter() if node.tag.endswith("title")]
    assert any(f": 24.6k, {ratio:.4g}" in title for title in titles)
    assert "both fit up to 40,233" in "".join(svgs(path)[2].itertext())
