"""Checkpoint plus choices in, engine directory out."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nemotrt.build.backend_options import checked_options
from nemotrt.build.limit_options import BATCH_SIZE, CHUNK_TOKENS, SEQ_LEN
from nemotrt.engines.artefact.manifest import (
    CHECKPOINT_FOLDER,
    CheckpointEntry,
    LimitsEntry,
    Manifest,
    write_manifest,
)
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.backend import AnyBackend, BuildJob, Executed, Target
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.checkpoint.hub.origin import origin_of
from nemotrt.engines.checkpoint.lora.merged import open_merged
from nemotrt.engines.checkpoint.lora.merging import Merging
from nemotrt.engines.checkpoint.stored_head import settled_json
from nemotrt.engines.model.model_config import LayerKind, ModelConfig
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.text.chat.whole import check_texts
from nemotrt.engines.text.tokenizer import TOKENIZER_FILES
from nemotrt.engines.text.tokenizer_config import carry_templates
from nemotrt.errors import ConfigError
from nemotrt.files.writing import writing_folder
from nemotrt.profiles.hardware.gpu_profile import load_gpu

DEFAULT_LIMITS = Limits(BATCH_SIZE, SEQ_LEN, CHUNK_TOKENS)


@dataclasses.dataclass(frozen=True, slots=True)
class BuildSpec:
    """What to build.

    `backend` is by default the one that runs on any CPU; `precision` None means the checkpoint's
    own; `options` are the backend's Options, None for their defaults. `lora` are adapters that are
    merged into the weights.
    """

    backend: str = dataclasses.field(default_factory=lambda: registry.names()[0])
    gpu: str | None = None
    precision: Precision | None = None
    limits: Limits = DEFAULT_LIMITS
    options: Any = None
    lora: tuple[Merging, ...] = ()


def build_engine(
    source: Path,
    target: Path,
    spec: BuildSpec,
    *,
    force: bool = False,
    report: Callable[[str], None] = lambda stage: None,
) -> Manifest:
    """Build the checkpoint folder `source` into the engine directory `target`.

    Args:
        source: a Hugging Face folder, quantized or not.
        target: the new folder; it appears only when it is whole.
        spec: the backend, GPU, precision and limits.
        force: replace an existing `target`.
        report: called with the name of each stage as it starts.

    Raises:
        ConfigError: the choices don't go together, or the model is not supported.
        ArtefactError: the checkpoint is damaged.
        EnvironmentUnfitError: the compiler for the choice is not here.
    """
    checkpoint = open_merged(source, spec.lora)
    resolved = resolve(checkpoint, spec)
    with writing_folder(target, force=force) as folder:
        if spec.lora and not registry.find(spec.backend).is_cpu:
            report("merging adapters")
            resolved = dataclasses.replace(resolved, checkpoint=_merged(checkpoint, folder))
        manifest = _build(resolved, spec, BuildJob(folder, spec.limits, report))
        config = settled_json(source, checkpoint.config)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        carry_templates(source, folder)
        report("checksums")
        write_manifest(folder, manifest)
    return manifest


def _merged(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    """Write the merged checkpoint into the engine's folder, for backends that bind its weights."""
    from nemotrt.quantize.writing.merged import write_merged

    write_merged(checkpoint, folder / CHECKPOINT_FOLDER)
    return open_checkpoint(folder / CHECKPOINT_FOLDER)


def check_spec(checkpoint: Checkpoint, spec: BuildSpec) -> Precision:
    """Return the precision to build in; raises where the choices don't go together."""
    return resolve(checkpoint, spec).precision


def resolve(checkpoint: Checkpoint, spec: BuildSpec) -> Target[Any]:
    """Return what is to be built, with every choice made; raises where they don't go together."""
    backend = registry.find(spec.backend)
    options = checked_options(backend, spec.options)
    check_texts(checkpoint.path)
    stored = checkpoint.quant.precision
    precision = spec.precision or stored or default_precision(checkpoint, backend)
    if stored and precision is not stored and not backend.is_cpu:
        raise ConfigError(
            f"{checkpoint.path} is quantized to {stored}; it can't be built as {precision}."
        )
    capability = _capability(backend, spec.gpu)
    target = Target(checkpoint, precision, stored, spec.gpu, capability, options)
    _check_blocks(checkpoint, backend)
    backend.check(target)
    if not backend.is_cpu and precision is not Precision.BF16 and stored is None:
        raise ConfigError(
            f"{checkpoint.path} is not quantized; first run: "
            f"nemotrt quantize {checkpoint.path} --recipe {precision} -o OUT"
        )
    backend.check_memory(target)
    return target


def _check_blocks(checkpoint: Checkpoint, backend: AnyBackend) -> None:
    """Raise ConfigError where the model has blocks that the backend hasn't."""
    if checkpoint.config.moe is None or backend.has_experts:
        return
    others = ", ".join(other.name for other in registry.backends() if other.has_experts)
    raise ConfigError(
        f"backend {backend.name} has no expert layers, of which {checkpoint.path} has "
        f"{checkpoint.config.count(LayerKind.MOE)}; use one of: {others}."
    )


def _capability(backend: AnyBackend, gpu: str | None) -> str | None:
    """Return the GPU's compute capability for a GPU backend, None for a CPU's."""
    if not backend.is_cpu:
        if gpu is None:
            raise ConfigError(f"backend {backend.name} needs --gpu, such as a10g or a100.")
        return compute_capability(gpu)
    if gpu is not None:
        raise ConfigError(f"backend {backend.name} runs on the CPU; leave out --gpu.")
    return None


def compute_capability(gpu: str) -> str:
    """Return the compute capability of a known GPU, such as "8.6"."""
    capability = load_gpu(gpu).compute_capability
    if capability is None:
        raise ConfigError(f"{gpu} is no GPU that TensorRT compiles for.")
    return capability


def default_precision(checkpoint: Checkpoint, backend: AnyBackend) -> Precision:
    """Return the precision in which an unquantized checkpoint is built."""
    is_float32 = checkpoint.config.dtype == "float32" and backend.is_cpu
    return Precision.FP32 if is_float32 else Precision.BF16


def _build(target: Target[Any], spec: BuildSpec, job: BuildJob) -> Manifest:
    """Let the backend write its payload; return the manifest, without file digests."""
    job.report("graph")
    backend, checkpoint = registry.find(spec.backend), target.checkpoint
    payload = backend.build(target, job)
    is_inside = checkpoint.path.parent == job.folder
    notes = payload.notes | ({"lora": ", ".join(map(str, spec.lora))} if spec.lora else {})
    return Manifest(
        backend=backend.name,
        gpu=target.gpu,
        compute_capability=target.compute_capability,
        precision=target.precision,
        executed=backend.executed is Executed.HERE,
        limits=LimitsEntry(**dataclasses.asdict(job.limits)),
        model=model_summary(checkpoint.config),
        checkpoint=CheckpointEntry(
            path=CHECKPOINT_FOLDER if is_inside else str(checkpoint.path.resolve()),
            fingerprint=checkpoint.fingerprint(),
            origin=origin_of(checkpoint.path),
        ),
        weights=dict(payload.weights),
        tools=dict(payload.tools),
        options=notes,
        files={},
    )


def model_summary(config: ModelConfig) -> dict[str, int | float | str | bool | None]:
    """Return the dimensions that a reader of engine.json wants, flat."""
    return {
        "model_type": config.model_type,
        "layers": config.pattern,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "mamba_num_heads": config.mamba.num_heads if config.mamba else 0,
        "mamba_head_dim": config.mamba.head_dim if config.mamba else 0,
        "ssm_state_size": config.mamba.state_size if config.mamba else 0,
        "num_attention_layers": config.num_attention_layers,
        "num_mamba_layers": config.num_mamba_layers,
        "kv_elements_per_token": config.kv_elements_per_token,
        "ssm_state_elements_per_request": config.ssm_state_elements,
        "conv_state_elements_per_request": config.conv_state_elements,
        **(
            {
                "n_routed_experts": config.moe.num_experts,
                "num_experts_per_tok": config.moe.num_chosen,
            }
            if config.moe
            else {}
        ),
    }
