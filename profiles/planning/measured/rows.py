"""Measured throughput rows: what each states, and whether it can judge a prediction."""

import csv
import io
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.errors import ConfigError
from nemotrt.files.text_file import read_text
from nemotrt.profiles.planning.measured.campaigns.harness import (
    PLAIN,
    Harness,
    Setup,
    harness_of,
)
from nemotrt.profiles.planning.sources.known_models import known_models

MEASURED_FOLDER = resources.files("nemotrt.profiles.planning.measured")
SHIPPED_ROWS = MEASURED_FOLDER / "campaigns/throughput_measured.csv"
# Rows with a time to the first token, several GPUs, or an engine of 2025 and later.
SERVED_ROWS = MEASURED_FOLDER / "campaigns/served_measured.csv"
# The spellings of the collection, and the names that the planner knows.
GPUS = {
    "A10G": "a10g",
    "A100-SXM4-80": "a100",
    "A100-SXM4-40": "a100-40",
    "A100-PCIE-80": "a100-80-pcie",
    "H100-80-SXM": "h100",
    "H100-80 (GCP)": "h100",  # Google Cloud's a3 machines have the SXM board
    "H100-PCIe": "h100-pcie",
    "H200-141-SXM": "h200",
    "L40S": "l40s",
    "L4": "l4",
    "B200-180": "b200",
}
MODELS = {
    "llama-7b-mha": "llama-7b",
    "nano2-candidate-2 (=nemotron-nano-9b-v2: 4480/15680/128 heads)": "nemotron-nano-9b-v2",
    "llama-3.1-nemotron-nano-8b-v1 (= llama-3.1-8b arch)": "llama-3.1-8b",
}
PRECISIONS = {
    "fp16": Precision.BF16,  # the same bytes and the same rate
    "bf16": Precision.BF16,
    "bf16?": Precision.BF16,
    "bfloat16": Precision.BF16,
    "fp8": Precision.FP8,
    "fp8?": Precision.FP8,
}
COLUMNS = (
    "model",
    "gpu",
    "n_gpus",
    "precision",
    "kv_dtype",
    "ssm_state_dtype",
    "engine",
    "engine_version",
    "isl",
    "osl",
    "tp",
    "concurrency",
    "metric",
    "tokens_per_s",
    "itl_ms",
    "ttft_ms",
    "kind",
    "source",
    "notes",
)
# How far the row's own latencies may contradict the concurrency that it states (Little's law).
MAX_CONCURRENCY_MISMATCH = 0.25


@dataclass(frozen=True, slots=True)
class MeasuredRow:
    """One published measurement, in the planner's names; empty fields are None."""

    number: int
    model: str
    gpu: str
    precision: Precision | None
    kv: NumberFormat | None
    ssm: NumberFormat | None
    engine: str
    isl: int | None
    is_isl_assumed: bool
    osl: int | None
    concurrency: int | None
    metric: str
    tokens_per_s: float
    itl_ms: float | None
    ttft_ms: float | None
    kind: str
    source: str
    notes: str
    role: str
    tp: int
    engine_version: str = ""
    power_w: float | None = None  # of all GPUs
    max_num_tokens: int | None = None  # new tokens in one call; None: the engine's own
    harness: Harness = PLAIN

    @property
    def name(self) -> str:
        """The row in one line, to list it by."""
        load = f"{self.isl or '?'}/{self.osl or '?'} x {self.concurrency or '?'}"
        gpu = self.gpu if self.tp == 1 else f"{self.tp} x {self.gpu}"
        return f"#{self.number} {self.model} {gpu} {self.engine} {load}"

    @property
    def is_max_load(self) -> bool:
        """Whether the engine itself chose the batch, under more requests than fit."""
        return self.kind == "max_load" and self.concurrency is None

    @property
    def in_flight(self) -> float | None:
        """Requests in flight by Little's law from the row's own latencies, or None."""
        if self.itl_ms is None or self.ttft_ms is None or not self.osl:
            return None
        latency_s = (self.ttft_ms + self.itl_ms * (self.osl - 1)) / 1e3
        return self.tokens_per_s / self.osl * latency_s


def read_rows(path: Path | None = None) -> list[MeasuredRow]:
    """Return the rows of a CSV in the collection's columns; the shipped ones by default.

    Raises:
        ConfigError: a column is missing, or a row is damaged.
    """
    if path is not None:
        return _parse(read_text(path), str(path), 0)
    rows: list[MeasuredRow] = []
    for shipped in (SHIPPED_ROWS, SERVED_ROWS):
        rows += _parse(shipped.read_text(encoding="utf-8"), shipped.name, len(rows))
    return rows


def _parse(text: str, source: str, first: int) -> list[MeasuredRow]:
    """Return the rows of a CSV's text, numbered from `first`."""
    reader = csv.DictReader(io.StringIO(text))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"{source} has no column {', '.join(missing)}.")
    rows = []
    for number, raw in enumerate(reader):
        try:
            rows.append(_row(first + number, raw))
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"{source}, row {number + 1}: {error}.") from error
    return rows


def why_unscorable(row: MeasuredRow) -> str:
    """Return why the row cannot judge a prediction at a stated load, or an empty string."""
    for reason, applies in (
        ("lengths were lost", row.kind == "fixed_concurrency_unknown_io"),
        ("the model's shape is not known", not row.model),
        ("the GPU's variant is not stated", not row.gpu),
        ("not output tokens per second", not row.metric.startswith("output_tok_s")),
        ("the precision is not one that the planner has", row.precision is None),
        ("chat prompts of unknown length", "lm-arena-chat" in row.source),
        ("the collection calls it noisy", _is_noisy(row)),
        ("a length is not stated", row.isl is None or row.osl is None),
        ("the load is a request rate", row.kind == "online" and row.concurrency is None),
        ("the concurrency is not stated", row.concurrency is None and not row.is_max_load),
    ):
        if applies:
            return reason
    if row.in_flight is not None and row.concurrency is not None:
        mismatch = abs(row.in_flight / row.concurrency - 1)
        if mismatch > MAX_CONCURRENCY_MISMATCH:
            return f"its own latencies mean {row.in_flight:.1f} requests in flight (Little's law)"
    return ""


def _is_noisy(row: MeasuredRow) -> bool:
    """Whether the notes disown the row: "noisy" alone, or "B200 rows ... are noisy"."""
    return row.notes == "noisy" or (row.gpu == "b200" and "B200 rows" in row.notes)


def _row(number: int, raw: dict[str, str]) -> MeasuredRow:
    precision = PRECISIONS.get(raw["precision"])
    engine = _engine(raw["engine"], raw["engine_version"], raw["kind"])
    isl, osl, tp = _length(raw["isl"]), _length(raw["osl"]), int(raw["tp"])
    concurrency = _length(raw["concurrency"])
    harness = harness_of(
        Setup(
            source=raw["source"],
            notes=raw["notes"],
            engine=engine,
            version=raw["engine_version"],
            lengths=(isl, osl),
            concurrency=concurrency,
            tp=tp,
            is_fp8=precision is Precision.FP8,
            gpu=raw["gpu"],
        )
    )
    return MeasuredRow(
        number=number,
        model=_known_model(raw["model"]),
        gpu=GPUS.get(raw["gpu"].rstrip("?"), ""),
        precision=precision,
        kv=_kv(raw["kv_dtype"], precision),
        ssm=NumberFormat.FP32 if raw["ssm_state_dtype"] == "float32" else None,
        engine=engine,
        isl=isl,
        is_isl_assumed=raw["isl"].startswith("~"),
        osl=osl,
        concurrency=concurrency,
        metric=raw["metric"],
        tokens_per_s=float(raw["tokens_per_s"]) * (tp if "per GPU" in raw["metric"] else 1),
        itl_ms=float(raw["itl_ms"]) if raw["itl_ms"] else None,
        ttft_ms=float(raw["ttft_ms"]) if raw["ttft_ms"] else None,
        kind=raw["kind"],
        source=raw["source"],
        notes=raw["notes"],
        role=raw.get("role") or "test",
        tp=tp,
        engine_version=raw["engine_version"],
        power_w=_power(raw["notes"], tp),
        max_num_tokens=harness.max_num_tokens,
        harness=harness,
    )


def _known_model(name: str) -> str:
    known = MODELS.get(name, name)
    return known if known in known_models() else ""


def _kv(name: str, precision: Precision | None) -> NumberFormat | None:
    """Return the stated KV format; None leaves the planner's default."""
    if not name:
        return None
    return NumberFormat.FP8 if name == "fp8" else NumberFormat.BF16


def _power(notes: str, tp: int) -> float | None:
    """Return the watts that the notes state as "avg power 402 W" of each GPU."""
    found = re.search(r"avg power (\d+) W", notes)
    return tp * float(found[1]) if found else None


def _length(text: str) -> int | None:
    """Return a whole number; "~200 (not published; ...)" is read as what it assumes."""
    words = text.removeprefix("~").split()
    try:
        return round(float(words[0])) if words else None
    except ValueError:
        return None


def _engine(name: str, version: str, kind: str) -> str:
    """Return the engine profile that stands for a name and version."""
    lower = name.lower()
    if "tensorrt" in lower or "trtllm" in lower:
        if kind == "static_batch":
            return "tensorrt-llm-0.9"
        return _tensorrt_llm(version, kind)
    return "sglang" if "sglang" in lower else "vllm"


def _tensorrt_llm(version: str, kind: str) -> str:
    """Return which TensorRT-LLM a row ran: NVIDIA's offline tables, or a server by its version."""
    if kind == "max_load" or version.startswith("0.1") or version == "1.0.0":  # NIM 1.0.0: C++
        return "tensorrt-llm"
    is_early = "PyTorch" in version or version.startswith("1.0.0rc")
    return "tensorrt-llm-1.0rc" if is_early else "tensorrt-llm-serve"
