"""What a reader must know beside a plan's figures: what it is not of, and how far off it was.

The track record is what `nemotrt plan validate` says of test rows by engine and GPU; a test keeps
the file in step.
"""

import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.profiles.planning.answers.as_built import built_note
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.memory.capacity import GIB
from nemotrt.profiles.planning.time.engine_profile import WindowUse

RECORD = resources.files("nemotrt.profiles.planning.measured") / "records/track_record.json"
# As a plan prints them.
DRAFT_NOTES = (
    "what makes the guesses (a draft model, MTP heads, a search of the text) is not counted, nor "
    "what sampling of them takes; guesses that are made and do not hold need --guesses-per-step",
    "no measured row has speculation: the errors told are of runs without it",
)
FIGURES = ("tokens/s", "tpot", "ttft", "power")


def notes_of(deployment: Deployment, largest: int) -> tuple[str, ...]:
    """Return what else a reader must know; `largest` is the largest batch."""
    notes = list(contradictions(deployment))
    longest, total = deployment.model.max_position_embeddings, deployment.isl + deployment.osl
    if total > longest:
        notes.append(f"{total} tokens are more than the {longest} that the model was made for")
    notes += windows_notes(deployment)
    if deployment.drafts:
        notes += DRAFT_NOTES
    if (adapters := deployment.adapters) is not None:
        size = adapters.num_bytes(deployment.model) / GIB
        notes.append(
            f"{adapters.count} adapters of rank {adapters.rank} in every linear but routed experts "
            f"take {size:.2f} GiB, counted with the weights, and every step reads them all; no "
            "measured row has any"
        )
    weights = deployment.formats.precision.weights.format
    if weights.kind == "int":  # no published row has such weights
        notes.append(f"no measured {weights.upper()} row exists: its time is the roofline's alone")
    if note := built_note(deployment, largest):
        notes.append(note)
    gpu = deployment.gpu
    if machine := gpu.machine:
        engines = deployment.num_engines
        more = f", so {engines} such engines fit beside each other" if engines > 1 else ""
        notes.append(f"{machine.name} has {machine.num_gpus} x {gpu.name}{more}")
    if gpu.half == "fp16" and deployment.formats.activation is NumberFormat.BF16:
        notes.append(
            f"{gpu.name} has no bf16: all that is called bf16 here runs in fp16, of the same size "
            "and rate; values beyond 65504 overflow there, which checkpoints in bf16 may have"
        )
    for text in (deployment.engine.notes, gpu.notes):
        if text:
            notes.append(text.rstrip("."))
    return tuple(notes)


def windows_notes(deployment: Deployment) -> Iterator[str]:
    """Yield what an engine keeps of layers with a sliding window, if that is more than it."""
    windows, engine = deployment.source.windows, deployment.engine
    if windows is None or engine.windows.use is WindowUse.FREED:
        return
    kept = (
        f"{engine.name} keeps all tokens of {windows.num_layers} layers that see the last "
        f"{windows.tokens} alone"
    )
    is_known = engine.windows.use is WindowUse.KEPT
    yield f"{kept}: {engine.windows.source}" if is_known else f"{kept}, as far as is known"


def contradictions(deployment: Deployment) -> Iterator[str]:
    """Yield each format of the plan that differs from the checkpoint's own, as a sentence."""
    source, formats = deployment.source, deployment.formats
    name, quantization = deployment.model_name, source.quantization
    if quantization is not None and formats.precision is not quantization.precision:
        yield (
            f"{name} is stored in {quantization.precision} ({quantization.title}), but this plan "
            f"is for {formats.precision}: its weights are not those of the files"
        )
    if source.floats is NumberFormat.FP32 and formats.activation is not NumberFormat.FP32:
        yield (
            f"{name} is stored in fp32; engines run what is not quantized in 16 bits, and so does "
            f"this plan ({formats.precision})"
        )
    if source.kv is not None and formats.kv is not source.kv:
        yield (
            f"the KV cache of {name} is {source.kv} by its config, but this plan has a "
            f"{formats.kv} one"
        )
    if source.ssm is not None and source.model.num_mamba_layers and formats.ssm is not source.ssm:
        yield (
            f"the SSM states of {name} are {source.ssm} by its config, but this plan has "
            f"{formats.ssm} ones"
        )


@cache
def _record() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(RECORD.read_text(encoding="utf-8"))
    return found


def track_record(gpu: str, engine: str) -> tuple[str, ...]:
    """Return a line for each figure of a plan of an engine on `gpu`."""
    return tuple(_line(figure, gpu, engine) for figure in FIGURES)


def _line(figure: str, gpu: str, engine: str) -> str:
    """Return the record on both; where there is none, whether other engines ran on the GPU."""
    seen, where = _record()[figure], f"{figure} on {gpu} with {engine}"
    if mine := seen.get(f"{engine} {gpu}"):
        return f"{where}: {mine['mape']:.0%} over {mine['num_rows']} rows"
    others = {name: row for name, row in seen.items() if name.endswith(f" {gpu}")}
    num_rows = sum(row["num_rows"] for row in others.values())
    if not num_rows:
        return f"{where}: never measured"
    mean = sum(row["mape"] * row["num_rows"] for row in others.values()) / num_rows
    return f"{where}: never measured; with other engines {mean:.0%} over {num_rows} rows"
