"""The command that serves a plan, with the files that it reads and what must come before it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nemotrt.engines.backends import registry
from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.engines.runtime.engine import Limits
from nemotrt.errors import ConfigError
from nemotrt.profiles.planning.answers.as_built import unbuilt
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.plan import Plan
from nemotrt.profiles.planning.launch.served_model import ServedModel, served_model
from nemotrt.profiles.planning.launch.table import OWN, Case, LaunchTable, Words
from nemotrt.profiles.planning.memory.capacity import GIB
from nemotrt.profiles.planning.sessions.answer import SessionsPlan

# CUDA graphs of decode steps: more sequences at once gain nothing of them.
# Source: the largest size that vLLM captures by default (max_cudagraph_capture_size).
MAX_GRAPH_SIZE = 512


@dataclass(frozen=True, slots=True)
class Launch:
    """How an engine is started for a plan; nothing of it was run.

    `before` are commands that come first, `files` the texts of files by their names.
    """

    engine: str
    version: str
    date: str
    source: str
    before: tuple[tuple[str, ...], ...]
    argv: tuple[str, ...]
    files: dict[str, str]
    notes: tuple[str, ...]


def launch(
    table: LaunchTable, deployment: Deployment, plan: Plan, sessions: SessionsPlan | None = None
) -> Launch:
    """Return the command of a plan.

    Raises:
        ConfigError: the engine has not what was planned, or the model has no checkpoint.
    """
    _check(table, deployment)
    model = served_model(deployment.model_name)
    cases = _cases(deployment, model, sessions)
    before, model_path = _quantized(table, deployment, model)
    figures = _figures(table, deployment, plan, model, sessions) | {"model": model_path}

    def said(words: Sequence[Words]) -> tuple[str, ...]:
        held = (item.words for item in words if cases.issuperset(item.only))
        return tuple(word.format_map(figures) for part in held for word in part)

    files = {table.file: _file(table, deployment, plan)} if table.file else {}
    command = tuple(word.format_map(figures) for word in table.command)
    return Launch(
        engine=table.name,
        version=table.version,
        date=table.date.isoformat(),
        source=table.source,
        before=(*before, *(said(words) for words in table.before)),
        argv=(*command, *said(table.options)),
        files=files,
        notes=tuple(note.text for note in table.notes if cases.issuperset(note.only)),
    )


def _check(table: LaunchTable, deployment: Deployment) -> None:
    """Raise ConfigError where the engine has not a format, or the GPUs, of the plan."""
    formats, name = deployment.formats, table.name
    if formats.precision not in table.precisions:
        known = ", ".join(table.precisions)
        raise ConfigError(f"--launch {name}: {table.title} loads {known}; not {formats.precision}.")
    told = [("KV cache", formats.kv, table.kv, table.kv_lacks, "--kv-cache")]
    if deployment.model.num_mamba_layers:
        told.append(("SSM states", formats.ssm, table.ssm, table.ssm_lacks, "--ssm-state"))
    for what, planned, known_formats, why, flag in told:
        if planned not in known_formats:
            raise ConfigError(
                f"--launch {name}: no {planned} {what}: {why}. Use {flag} "
                f"{' or '.join(known_formats)}."
            )
    if deployment.tp > 1 and table.tp_lacks:
        raise ConfigError(f"--launch {name}: no tensor parallelism: {table.tp_lacks}.")
    if table.name == OWN and (reason := unbuilt(deployment)):
        raise ConfigError(f"--launch {name}: `nemotrt build` makes no such engine: {reason}.")


def _cases(
    deployment: Deployment, model: ServedModel, sessions: SessionsPlan | None
) -> frozenset[Case]:
    """Return what holds of the plan."""
    is_kept = sessions is not None and sessions.kept is not None
    return frozenset(
        (
            Case.HYBRID if deployment.model.num_mamba_layers else Case.DENSE,
            Case.KEPT if is_kept else Case.WHOLE,
            Case.GPU if deployment.gpu.kind == "gpu" else Case.CPU,
            model.chat,
            *([Case.SEVERAL] if deployment.tp > 1 else []),
            *([Case.HUB] if model.is_on_hub else []),
        )
    )


def _quantized(
    table: LaunchTable, deployment: Deployment, model: ServedModel
) -> tuple[list[tuple[str, ...]], str]:
    """Return what quantizes the checkpoint first, and where it then is.

    Raises:
        ConfigError: the checkpoint is quantized otherwise than planned.
    """
    precision, stored = deployment.formats.precision, deployment.source.quantization
    if stored is not None and stored.precision is not precision:
        raise ConfigError(
            f"--launch {table.name}: {deployment.model_name} is stored in {stored.precision}, and "
            f"the plan is for {precision}; leave --precision out."
        )
    if stored is not None or not precision.is_quantized or not table.quantized_as:
        return [], model.path
    folder = f"{model.name}-{precision}"
    words = ["nemotrt", "quantize", model.path, "--recipe", precision.value]
    words += ["--format", table.quantized_as]
    if deployment.formats.kv is NumberFormat.FP8:
        words += ["--kv-cache", "fp8"]
    return [(*words, "-o", folder)], folder


def _figures(
    table: LaunchTable,
    deployment: Deployment,
    plan: Plan,
    model: ServedModel,
    sessions: SessionsPlan | None,
) -> dict[str, object]:
    """Return what the words of a table may name."""
    formats, budget = deployment.formats, deployment.fit.budget
    usable, memory_bytes = budget.usable_bytes, deployment.gpu.memory_bytes
    kept_bytes = sessions.prefix_cache_bytes if sessions else None
    return {
        "name": model.name,
        "gpu": deployment.gpu.name,
        "half": {"bf16": "bfloat16", "fp16": "float16"}[deployment.gpu.half],
        "engine": deployment.engine.name,
        "precision": table.precisions[formats.precision] or formats.precision.value,
        "kv": table.kv.get(formats.kv, "") or formats.kv.value,
        "ssm": table.ssm.get(formats.ssm, "") or formats.ssm.value,
        "tp": deployment.tp,
        "batch_size": plan.batch_size,
        "max_seq_len": plan.max_seq_len,
        "total_tokens": plan.batch_size * plan.max_seq_len,
        "chunk_tokens": plan.max_num_tokens,
        "max_num_tokens": max(plan.max_num_tokens, plan.batch_size),
        "graph_size": min(plan.batch_size, MAX_GRAPH_SIZE),
        "memory_share": _floor(usable / memory_bytes),
        "static_share": _floor((usable - plan.workspace_bytes) / memory_bytes),
        "file": table.file,
        "prefix_cache_gib": math.ceil((kept_bytes or 0) / GIB * 10) / 10,
    }


def _floor(share: float) -> float:
    """Return a share in thousandths, not more than it but for what a byte makes."""
    return math.floor(share * 1000 + 1e-4) / 1000


def _file(table: LaunchTable, deployment: Deployment, plan: Plan) -> str:
    """Return the file that an engine's server reads; its caches get what the plan leaves them."""
    limits = Limits(plan.batch_size, plan.max_seq_len, min(plan.max_num_tokens, plan.max_seq_len))
    taken = plan.weights_bytes + plan.workspace_bytes
    usable, memory_bytes = deployment.fit.budget.usable_bytes, deployment.gpu.memory_bytes
    return registry.find(table.backend).server_file(
        limits,
        tp_size=plan.tp,
        has_fp8_cache=deployment.formats.kv is NumberFormat.FP8,
        cache={
            "free_gpu_memory_fraction": _floor((usable - taken) / (memory_bytes - taken)),
            "mamba_ssm_cache_dtype": deployment.formats.ssm.word,
        },
    )
