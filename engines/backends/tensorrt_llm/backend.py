"""The tensorrt-llm backend, as one object."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nemotrt.engines.backends.protocol.backend import (
    Backend,
    BuildJob,
    Executed,
    Notes,
    Payload,
    Target,
)
from nemotrt.engines.backends.protocol.planning import (
    FREE_GPU_MEMORY_FRACTION,
    ForeignRuntime,
    Planning,
)
from nemotrt.engines.backends.tensorrt_llm.options import TensorRTLLMOptions
from nemotrt.engines.backends.tensorrt_llm.process.interpreter import find_python
from nemotrt.engines.backends.tensorrt_llm.process.versions import STATES_SINCE
from nemotrt.engines.checkpoint.hub.cache import place_of
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError
from nemotrt.needs import Ability, Need

if TYPE_CHECKING:
    from nemotrt.engines.artefact.manifest import Manifest
    from nemotrt.engines.artefact.options import OpenOptions
    from nemotrt.engines.runtime.engine import Engine, Limits

WRITTEN = "written, not executed"


class TensorRTLLMBackend(Backend[TensorRTLLMOptions]):
    """Writes what `tensorrt_llm.LLM` needs beside the checkpoint, and drives it on the GPU host."""

    name = "tensorrt-llm"
    has_own_python = True
    takes_adapters = True
    has_experts = True  # its loader reads the checkpoint itself
    options_type = TensorRTLLMOptions
    # Source: docs/reference/formats.md, what the loaders take.
    precisions = (
        Precision.BF16,
        Precision.INT8_WO,
        Precision.INT4_WO,
        Precision.FP8,
        Precision.FP8_DYNAMIC,
    )
    instead: ClassVar[dict[Precision, str]] = {
        Precision.INT8_SQ: "its PyTorch backend has no INT8 W8A8 linears; use a checkpoint in "
        "int8-wo, or --backend tensorrt, which runs int8-sq",
        Precision.INT8_DYNAMIC: "its PyTorch backend has no INT8 W8A8 linears; use a checkpoint in "
        "int8-wo, or serve this one with vLLM",
    }
    executed = Executed.NEVER
    not_executed_note = "Written, not executed: TensorRT-LLM runs on the GPU host."
    built = WRITTEN
    built_how = ((WRITTEN, "for the engine on the GPU host; names and types as it has them"),)
    weights_place = "in the checkpoint"
    abilities = (Ability("serve with TensorRT-LLM here", needs_gpu=True, check=find_python),)

    def check(self, target: Target[TensorRTLLMOptions]) -> None:
        """Raise ConfigError unless it serves the checkpoint on so many of those GPUs."""
        from nemotrt.engines.backends.tensorrt_llm.bundle import check

        self.check_supported(target)
        path = target.checkpoint.path
        if target.options.is_code_trusted and place_of(path) and not any(path.glob("*.py")):
            raise ConfigError(
                f"--trust-remote-code: {path} is of the hub's cache without its Python code, which "
                "nemotrt never downloads. Read that code, download it into a folder of yours "
                "(hf download --local-dir), and give the folder."
            )
        told = target.options
        if (told.prefix_snapshots or told.avg_seq_len) and target.checkpoint.config.mamba is None:
            name = "--prefix-snapshots" if told.prefix_snapshots else "--avg-seq-len"
            raise ConfigError(f"{name} is for models with a recurrent state, which {path} has not.")
        if told.max_lora_rank is not None and told.max_loras is None:
            raise ConfigError("--max-lora-rank is of the adapters of --max-loras; give both.")
        check(target.checkpoint, target.capability, told.tp_size)

    def build(self, target: Target[TensorRTLLMOptions], job: BuildJob) -> Payload:
        """Write its arguments."""
        from nemotrt.engines.backends.tensorrt_llm.bundle import weight_entries, write_bundle

        told = target.options
        write_bundle(target.checkpoint, job.folder, job.limits, target.capability, told)
        job.report("weight digests")
        notes: Notes = {
            name: value
            for name, value in dataclasses.asdict(told).items()
            if value is not None and name != "planned_snapshots"  # that is in its file
        }
        return Payload({}, notes, weight_entries(target.checkpoint))

    def open(self, folder: Path, manifest: "Manifest", options: "OpenOptions") -> "Engine":
        """Return the bundle, running."""
        from nemotrt.engines.backends.tensorrt_llm.engine import open_engine

        return open_engine(folder, manifest, options)

    def reads_checkpoint(self, manifest: "Manifest") -> bool:
        """Whether it reads a checkpoint: always, also where an earlier release wrote no digests."""
        return True

    def needs_here(self, folder: Path, manifest: "Manifest") -> tuple[Need, ...]:
        """Return what opening the bundle asks of this machine."""
        return (*super().needs_here(folder, manifest), Need("TensorRT-LLM", find_python))

    def server_file(
        self, limits: "Limits", *, tp_size: int, has_fp8_cache: bool, cache: Mapping[str, object]
    ) -> str:
        """Return the arguments that trtllm-serve reads."""
        from nemotrt.engines.backends.tensorrt_llm.llm_args import LlmArgs, llm_args, to_yaml

        options = TensorRTLLMOptions(tp_size=tp_size)
        args = llm_args(limits, has_fp8_cache=has_fp8_cache, options=options)
        raw = args.told()
        raw["kv_cache_config"] |= cache
        return to_yaml(LlmArgs.model_validate(raw))

    def planned(
        self, options: TensorRTLLMOptions, model: ModelConfig, snapshots: int
    ) -> tuple[TensorRTLLMOptions, str]:
        """Return the options with what is planned of a hybrid's prefixes, unless they say it."""
        if model.mamba is None or options.prefix_snapshots is not None:
            return options, ""
        planned = dataclasses.replace(options, planned_snapshots=snapshots)
        return planned, (
            f"Planned: prefixes are reused, with a state kept every {snapshots} tokens and before "
            f"a prompt's opening, by TensorRT-LLM {STATES_SINCE} or later; 1.2 keeps none."
        )

    def planning(self, options: TensorRTLLMOptions) -> Planning:
        """Plan as it shares memory out."""
        return ForeignRuntime("tensorrt-llm", FREE_GPU_MEMORY_FRACTION, tp_size=options.tp_size)


BACKEND = TensorRTLLMBackend()
