"""Checkpoint plus choices in, engine directory out."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from nemotrt.build import host_backends
from nemotrt.build.backend_options import BACKEND_OPTIONS, check_options
from nemotrt.build.host_backends import HOST_BACKENDS, HostChoice
from nemotrt.build.plan_builder import PlanSpec, build_plan
from nemotrt.engines import onnxruntime, tensorrt
from nemotrt.engines.artefact import writing_folder
from nemotrt.engines.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.engine import Limits
from nemotrt.engines.manifest import (
    CheckpointEntry,
    LimitsEntry,
    Manifest,
    WeightInput,
    write_manifest,
)
from nemotrt.engines.model_config import ModelConfig
from nemotrt.engines.native import backend as native
from nemotrt.engines.native.program import StateFormat
from nemotrt.engines.opening import CPU_BACKENDS
from nemotrt.engines.plugins.choice import MambaLayers, check_plugins
from nemotrt.engines.precision import Precision
from nemotrt.engines.quant_config import QUANTIZED_PRECISION
from nemotrt.engines.stored_head import settled_json
from nemotrt.engines.tokenizer import TOKENIZER_FILES, check_tokenizer
from nemotrt.engines.tokenizer_config import carry_templates
from nemotrt.errors import ConfigError, unknown_name
from nemotrt.profiles.gpu_profile import load_gpu

BACKENDS = (*CPU_BACKENDS, "tensorrt", *HOST_BACKENDS)
DEFAULT_LIMITS = Limits(max_batch_size=8, max_seq_len=4096, chunk_tokens=128)


@dataclasses.dataclass(frozen=True, slots=True)
class BuildSpec:
    """What to build; `precision` None means the checkpoint's own.

    `is_embedded` puts the weights into a TensorRT plan; `workspace_bytes` bounds its scratch
    memory, 0 leaves that to TensorRT. `tp_size` is the number of GPUs that share the model, where a
    backend has that; `is_code_trusted` lets TensorRT-LLM import the checkpoint's own code. `mamba`
    says whose layers a TensorRT plan's Mamba layers are; `ssm_state` is the native engine's choice.
    """

    backend: str = "onnxruntime"
    gpu: str | None = None
    precision: Precision | None = None
    limits: Limits = DEFAULT_LIMITS
    is_exact: bool = False
    is_embedded: bool = False
    workspace_bytes: int = 0
    tp_size: int = 1
    is_code_trusted: bool = False
    mamba: MambaLayers = MambaLayers.NATIVE
    ssm_state: StateFormat = StateFormat.FLOAT32

    @property
    def has_plugins(self) -> bool:
        """Whether the plan's Mamba layers are plugins."""
        return self.mamba is MambaLayers.PLUGIN


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
    checkpoint = open_checkpoint(source)
    precision = check_spec(checkpoint, spec)
    with writing_folder(target, force=force) as folder:
        manifest = _build(checkpoint, folder, spec, precision, report)
        config = settled_json(source, checkpoint.config)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in TOKENIZER_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)
        carry_templates(source, folder)
        report("checksums")
        write_manifest(folder, manifest)
    return manifest


def check_spec(checkpoint: Checkpoint, spec: BuildSpec) -> Precision:
    """Return the precision to build in; raises where the choices don't go together."""
    if spec.backend not in BACKENDS:
        raise unknown_name("backend", spec.backend, BACKENDS)
    check_options(spec.backend, chosen_flags(spec))
    check_tokenizer(checkpoint.path)
    stored = QUANTIZED_PRECISION.get(checkpoint.quant.algo)
    precision = spec.precision or stored or default_precision(checkpoint, spec.backend)
    if spec.ssm_state is not StateFormat.FLOAT32 and checkpoint.config.mamba is None:
        raise ConfigError(
            f"--ssm-state is for models with Mamba layers; {checkpoint.config.model_type} has none."
        )
    if stored and precision is not stored and spec.backend not in CPU_BACKENDS:
        raise ConfigError(
            f"{checkpoint.path} is quantized to {stored}; it can't be built as {precision}."
        )
    if spec.backend in CPU_BACKENDS:
        if spec.gpu is not None:
            raise ConfigError(f"backend {spec.backend} runs on the CPU; leave out --gpu.")
        if spec.backend == "native":
            native.check(precision, stored)
        else:
            onnxruntime.check(precision)
        return precision
    if spec.gpu is None:
        raise ConfigError(f"backend {spec.backend} needs --gpu, such as a10g or a100.")
    capability = compute_capability(spec.gpu)
    if spec.backend in HOST_BACKENDS:
        host_backends.check(spec.backend, checkpoint, capability, precision, spec.tp_size)
    else:
        if spec.has_plugins:
            is_local = capability == tensorrt.local_compute_capability()
            check_plugins(checkpoint.config, spec.gpu, has_local_gpu=is_local)
        tensorrt.check(capability, precision, has_plugins=spec.has_plugins)
    if precision is not Precision.BF16 and stored is None:
        raise ConfigError(
            f"{checkpoint.path} is not quantized; first run: "
            f"nemotrt quantize {checkpoint.path} --recipe {precision} -o OUT"
        )
    if spec.is_embedded and spec.backend == "tensorrt":
        tensorrt.check_memory(checkpoint)
    return precision


def chosen_flags(spec: BuildSpec) -> list[str]:
    """Return the flags of the options that a spec sets to something else than their default."""
    default = BuildSpec()
    return [
        option.flag
        for option in BACKEND_OPTIONS
        if getattr(spec, option.field) != getattr(default, option.field)
    ]


def compute_capability(gpu: str) -> str:
    """Return the compute capability of a known GPU, such as "8.6"."""
    capability = load_gpu(gpu).compute_capability
    if capability is None:
        raise ConfigError(f"{gpu} is no GPU that TensorRT compiles for.")
    return capability


def default_precision(checkpoint: Checkpoint, backend: str) -> Precision:
    """Return the precision in which an unquantized checkpoint is built."""
    is_float32 = checkpoint.config.dtype == "float32" and backend in CPU_BACKENDS
    return Precision.FP32 if is_float32 else Precision.BF16


def _build(
    checkpoint: Checkpoint,
    folder: Path,
    spec: BuildSpec,
    precision: Precision,
    report: Callable[[str], None],
) -> Manifest:
    """Write the backend's payload to `folder` and return the manifest, without file digests."""
    report("graph")
    weights: dict[str, WeightInput] = {}
    options: dict[str, str | int | float | bool] = {}
    capability = None
    if spec.backend == "onnxruntime":
        onnxruntime.export(checkpoint, folder, spec.limits, precision, is_exact=spec.is_exact)
        options["is_exact"] = spec.is_exact
        tools = onnxruntime.tools()
    elif spec.backend == "native":
        native.export(checkpoint, folder, spec.limits, precision, spec.ssm_state)
        options["ssm_state"] = spec.ssm_state.value
        tools = native.tools()
    elif spec.backend in HOST_BACKENDS:
        assert spec.gpu is not None  # check_spec
        capability = compute_capability(spec.gpu)
        choice = HostChoice(capability, precision, spec.limits, spec.tp_size, spec.is_code_trusted)
        options, tools = host_backends.write(spec.backend, checkpoint, folder, choice, report)
    else:
        assert spec.gpu is not None  # check_spec
        capability = compute_capability(spec.gpu)
        how = PlanSpec(
            spec.limits, precision, capability, spec.is_embedded, spec.workspace_bytes, spec.mamba
        )
        weights, options = build_plan(checkpoint, folder, how, report)
        tools = tensorrt.tools(capability, has_plugins=spec.has_plugins)
    return Manifest(
        backend=spec.backend,
        gpu=spec.gpu,
        compute_capability=capability,
        precision=precision,
        executed=spec.backend in CPU_BACKENDS,
        limits=LimitsEntry(**dataclasses.asdict(spec.limits)),
        model=model_summary(checkpoint.config),
        checkpoint=CheckpointEntry(
            path=str(checkpoint.path.resolve()), fingerprint=checkpoint.fingerprint()
        ),
        weights=weights,
        tools=tools,
        options=options,
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
    }
