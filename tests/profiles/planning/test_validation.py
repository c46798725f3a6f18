"""The planner against measured rows, and the fit that made its corrections."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.gpu_profile import Corrections, load_gpu
from nemotrt.profiles.planning.answers.notes import FIGURES, RECORD, track_record
from nemotrt.profiles.planning.measured.campaigns.harness import PLAIN
from nemotrt.profiles.planning.measured.contradictions import contradicting
from nemotrt.profiles.planning.measured.fit import fit_corrections
from nemotrt.profiles.planning.measured.prediction import deployment_of, predicted_tokens_per_s
from nemotrt.profiles.planning.measured.rows import (
    SHIPPED_ROWS,
    MeasuredRow,
    read_rows,
    why_unscorable,
)
from nemotrt.profiles.planning.measured.validation import (
    LESS_CONTRADICTING,
    LESS_IMPOSSIBLE,
    Figure,
    Score,
    Validation,
    left_out,
    validate,
)

PLAIN_ONE = {"harness": PLAIN}
NUM_TABLES = 286  # rows of the file that the shares of these GPUs come from; then served ones


@pytest.fixture(scope="module")
def rows() -> list[MeasuredRow]:
    return read_rows()


@pytest.fixture
def found(validation: Validation) -> Validation:
    return validation


@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.08), ("fp8", 0.12)])
def test_mape_of_test_rows_with_a_stated_batch(
    found: Validation, precision: str, limit: float
) -> None:
    total = score(found, Figure.TOKENS_PER_S, "stated batch, all", precision)
    assert total.num_rows >= 130
    assert total.mape <= limit
    assert abs(total.bias) <= 0.03
    assert total.coverage is not None and total.coverage >= 0.85


@pytest.mark.parametrize("tp", [2, 4, 8])
def test_tensor_parallelism_is_not_biased(found: Validation, tp: int) -> None:
    total = score(found, Figure.TOKENS_PER_S, "stated batch", f"tp {tp}")
    assert total.num_rows >= 60 and total.mape <= 0.10 and abs(total.bias) <= 0.04


def test_power_follows_the_load(found: Validation) -> None:
    total = next(s for s in found.by_gpu if s.figure is Figure.POWER and s.name[-1] == "h100")
    assert total.mape <= 0.12


def test_every_figure_of_a_plan_has_its_record(found: Validation) -> None:
    """The shipped file is what the rows say; rewritten by running this file."""
    assert json.loads(RECORD.read_text()) == record(found)
    assert track_record("h100", "vllm")[2].startswith("ttft on h100 with vllm: ")
    on_l4 = track_record("l4", "vllm")
    assert on_l4 == tuple(f"{figure} on l4 with vllm: never measured" for figure in FIGURES)
    # Nobody published a row of this engine there, and many of others.
    assert "never measured; with other engines " in track_record("h100", "nemotrt")[2]


def score(found: Validation, figure: Figure, *name: str) -> Score:
    return next(s for s in found.totals if s.figure is figure and s.name == ("test", *name))


def record(found: Validation) -> dict[str, dict[str, dict[str, float]]]:
    """What the rows of the score say of each figure by engine and GPU."""
    seen: dict[str, dict[str, dict[str, float]]] = {name: {} for name in FIGURES}
    for one in found.by_engine:
        if one.figure.value in seen:
            kept = {"num_rows": one.num_rows, "mape": round(one.mape, 2)}
            seen[one.figure.value][" ".join(one.name[1:])] = kept
    return seen


def test_rows_are_calibration_or_test_or_left_out(
    rows: list[MeasuredRow], found: Validation
) -> None:
    assert len(found.outcomes) + len(found.unscorable) == len(rows) == NUM_TABLES + 485
    assert {o.role for o in found.outcomes} == {"calibration", "test"}
    calibration = [o for o in found.outcomes if o.role == "calibration"]
    stated = [o for o in calibration if not o.row.is_max_load]
    assert len([o for o in stated if o.row.number < NUM_TABLES]) <= 15
    assert all(reason for _, reason in found.unscorable)


@pytest.mark.parametrize(
    ("needle", "reason"),
    [
        ("qps", "request rate"),
        ("lm-arena-chat", "unknown length"),
        ("nano2-candidate-1", "shape is not known"),
        ("docs.nvidia.com/nim", "lengths were lost"),
        ("total_tok_s", "not output tokens"),
    ],
)
def test_why_rows_are_left_out(rows: list[MeasuredRow], needle: str, reason: str) -> None:
    lines = SHIPPED_ROWS.read_text().splitlines()[1:]
    numbers = [number for number, line in enumerate(lines) if needle in line]
    assert numbers
    for number in numbers:
        assert reason in why_unscorable(rows[number])


def test_littles_law_finds_the_saturated_client(rows: list[MeasuredRow]) -> None:
    # 301 tokens/s of 150 tokens at 1.08 s + 149 x 61.7 ms each: 20.6 requests, not 64.
    row = rows[163]
    assert row.in_flight == pytest.approx(301.1851 / 150 * (1.0804 + 149 * 0.061727), rel=1e-3)
    assert "20.6 requests in flight" in why_unscorable(row)


def test_rows_know_how_their_load_was_made(rows: list[MeasuredRow]) -> None:
    """InferenceMAX draws lengths from 0.8 on, and its vLLM servers take 8192 tokens a call."""
    mine = [row for row in rows if "source_file=2026-04-06.csv" in row.notes]
    assert len(mine) == 160 and {row.harness.shortest_share for row in mine} == {0.8}
    assert {row.max_num_tokens for row in mine if row.engine == "vllm"} == {8192}
    launched = [row for row in rows if row.source.startswith("aiconfigurator")]
    others = [row for row in rows if row not in mine and row not in launched]
    assert {(row.harness.shortest_share, row.max_num_tokens) for row in others} == {(1.0, None)}


def test_rows_of_aiconfigurator_run_as_its_rules_launch_servers(rows: list[MeasuredRow]) -> None:
    """SGLang 0.5.6 mixes prompts into decode steps, 0.5.1 does not; prompts fill isl + 1500."""
    mine = [row for row in rows if row.source.startswith("aiconfigurator")]
    for version, mixes in (("0.5.6.post2", True), ("0.5.1.post1", None)):
        found = [row for row in mine if row.engine_version == version]
        assert {row.harness.mixes_prompts for row in found} == {mixes}
    tokens = {r.isl: r.max_num_tokens for r in mine if r.engine_version == "0.5.6.post2"}
    assert tokens == {1000: 3000, 2000: 4000, 4000: 8000, 8000: 8192}
    early = [row for row in mine if row.engine_version == "1.0.0rc3"]
    assert all(row.max_num_tokens == row.isl + row.concurrency + 1500 for row in early)
    late = [row for row in mine if row.engine_version == "0.12.0"]
    assert late and all(row.max_num_tokens == row.isl + row.concurrency + 1500 for row in late)
    assert not any(row.harness.splits_prompts for row in early)


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
def test_time_to_first_token(found: Validation, precision: str) -> None:
    total = score(found, Figure.TTFT, "stated batch, all", precision)
    assert total.num_rows >= 100 and total.mape <= 0.28 and abs(total.bias) <= 0.15
    less = score(found, Figure.TTFT, f"stated batch, {LESS_CONTRADICTING}", precision)
    assert less.mape <= 0.25 and abs(less.bias) <= 0.10


def test_time_to_first_token_of_all_rows(found: Validation) -> None:
    pairs = [o.pair(Figure.TTFT) for o in found.outcomes if o.role == "test"]
    errors = [pair[1].best / pair[0] - 1 for pair in pairs if pair]
    assert len(errors) >= 250
    assert sum(map(abs, errors)) / len(errors) <= 0.25
    assert abs(sum(errors) / len(errors)) <= 0.10


def test_rows_that_contradict_their_campaign_are_few_but_in_one(found: Validation) -> None:
    counts = Counter(
        (o.row.engine_version, o.precision) for o in found.outcomes if o.is_contradicting
    )
    assert counts.pop(("1.0.0rc3", "bf16")) > 20
    assert max(counts.values()) <= 3


def test_a_longer_answer_may_not_wait_much_longer(rows: list[MeasuredRow]) -> None:
    row = next(r for r in rows if r.ttft_ms and r.osl and r.concurrency)
    more = {"number": -1, "osl": 2 * row.osl}
    same = replace(row, **more, ttft_ms=1.4 * row.ttft_ms)
    later = replace(row, **more, ttft_ms=1.6 * row.ttft_ms)
    assert contradicting([row, same]) == frozenset()
    assert contradicting([row, later]) == {-1}
    # with more users, longer prompts, shorter answers or fewer GPUs nothing is said
    for easier in ({"concurrency": 999}, {"isl": 10**6}, {"osl": row.osl - 1}):
        assert contradicting([row, replace(later, **easier)]) == frozenset()


def test_prompts_that_are_sent_again_are_kept_where_they_fit(rows: list[MeasuredRow]) -> None:
    mine = [r for r in rows if r.engine_version == "0.12.0" and r.precision is Precision.FP8]
    kept = {r.number: deployment_of(r, load_gpu(r.gpu)) for r in mine}
    # 100 prompts: 2 rounds of warm-up of 16 users leave 68 of 320 requests with a new one
    sixteen = next(r for r in mine if r.concurrency == 16)
    assert kept[sixteen.number].kept_share == pytest.approx(1 - 68 / 320)
    assert kept[sixteen.number].kept_tokens == 7984  # whole blocks of 16 before the last token
    large = next(r for r in mine if r.model == "qwen3-32b" and r.tp == 1)
    assert not kept[large.number].kept_tokens  # 400,000 tokens do not fit beside 32 GB
    others = [r for r in rows if r.harness.num_prompts is None and not why_unscorable(r)]
    assert not any(deployment_of(r, load_gpu(r.gpu)).kept_tokens for r in others[::20])


def test_sglang_leaves_memory_to_calls(rows: list[MeasuredRow]) -> None:
    # 512 + 1.5 * 8192 + 2 * 256 + 128 MiB on one GPU
    found = [r for r in rows if r.engine_version == "0.5.8.post1"]
    assert {r.harness.reserve_mib for r in found} == {13440}
    row = found[0]
    less, more = (deployment_of(replace(row, **by), load_gpu("h100")) for by in ({}, PLAIN_ONE))
    assert less.max_batch_size() < row.concurrency < more.max_batch_size()


def test_a_campaign_with_an_impossible_row_is_told_apart(found: Validation) -> None:
    all_rows = score(found, Figure.TTFT, "stated batch, all", "fp8")
    possible = score(found, Figure.TTFT, f"stated batch, {LESS_IMPOSSIBLE}", "fp8")
    assert possible.num_rows < all_rows.num_rows and possible.mape < all_rows.mape


def test_a_row_beyond_the_datasheet_is_marked(found: Validation) -> None:
    beyond = [o for o in found.outcomes if o.is_beyond_floor]
    assert [o.row.number for o in beyond if o.row.number < NUM_TABLES] == [264, 265]
    # One source and version, whose prompts were probably cached.
    assert {(o.row.engine, o.row.engine_version) for o in beyond} == {("vllm", "0.12.0")}


@pytest.mark.parametrize("name", ["a100", "h200", "l40s"])
def test_shipped_corrections_are_the_fit(rows: list[MeasuredRow], name: str) -> None:
    shipped = load_gpu(name)
    bare = shipped.model_copy(update={"corrections": Corrections()})
    tables = [r for r in rows if r.gpu == name and r.engine.startswith("tensorrt-llm")]
    mine = [
        r
        for r in tables
        if r.role == "calibration" and r.number < NUM_TABLES and not why_unscorable(r)
    ]
    fitted = fit_corrections(bare, mine, "test")
    assert fitted.mape_after < fitted.mape_before
    for key, correction in fitted.gpu.corrections.present().items():
        assert getattr(shipped.corrections, key).best == pytest.approx(correction.best, abs=0.015)


def test_fit_recovers_a_known_share(rows: list[MeasuredRow]) -> None:
    from dataclasses import replace

    gpu = load_gpu("a100")
    base = next(r for r in rows if r.number == 143)
    truth = [
        replace(row, tokens_per_s=predicted_tokens_per_s(row, gpu))
        for row in (replace(base, concurrency=n) for n in (1, 2, 4, 8, 16, 32, 64))
    ]
    bare = gpu.model_copy(update={"corrections": Corrections()})
    fitted = fit_corrections(bare, truth, "test")
    assert fitted.mape_after < 0.02
    assert fitted.gpu.corrections.attention_bandwidth is not None
    expected = gpu.corrections.attention_bandwidth
    assert expected is not None
    assert fitted.gpu.corrections.attention_bandwidth.best == pytest.approx(expected.best, abs=0.04)


def test_rows_need_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("model,gpu\nqwen3-8b,A10G\n")
    with pytest.raises(ConfigError, match=r"has no column n_gpus, precision"):
        read_rows(path)
    path.write_text("")
    with pytest.raises(ConfigError, match=r"has no column model"):
        read_rows(path)
    header, first = SHIPPED_ROWS.read_text().splitlines()[:2]
    for damaged in (first.replace("16414.6988", "many"), "llama-3.1-8b,H100-80-SXM"):
        path.write_text(f"{header}\n{damaged}\n")
        with pytest.raises(ConfigError, match="row 1: "):
            read_rows(path)


def test_every_source_was_left_out_of_a_fit(found: Validation) -> None:
    """What `scripts/fit_planner.py --leave-out` wrote is of the rows that ship."""
    told = {one.source: one for one in left_out()}
    counts = Counter(o.row.source for o in found.outcomes)
    assert {source: one.num_rows for source, one in told.items()} == counts
    assert all(0 < one.mape < 1 and abs(one.bias) <= one.mape for one in told.values())
    total = sum(one.mape * one.num_rows for one in told.values()) / counts.total()
    assert total < 0.15


if __name__ == "__main__":
    Path(str(RECORD)).write_text(json.dumps(record(validate(read_rows())), indent=1) + "\n")
