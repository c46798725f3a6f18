"""The tensorrt-llm-1.2 backend, as one object."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nemotrt.engines.backends.protocol.backend import Backend, BuildJob, Executed, Payload, Target
from nemotrt.engines.backends.protocol.planning import (
    FREE_GPU_MEMORY_FRACTION,
    ForeignRuntime,
    Planning,
)
from nemotrt.engines.backends.tensorrt_llm_1_2.options import TensorRTLLM12Options
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import EnvironmentUnfitError

if TYPE_CHECKING:
    from nemotrt.engines.artefact.manifest import Manifest
    from nemotrt.engines.artefact.options import OpenOptions
    from nemotrt.engines.runtime.engine import Engine

CAPABILITIES = ("8.0", "8.6", "8.9", "9.0")
WRITTEN = "written, not executed"


class TensorRTLLM12Backend(Backend[TensorRTLLM12Options]):
    """Writes a checkpoint and a model class that `trtllm-build` 1.2 builds on the GPU host."""

    name = "tensorrt-llm-1.2"
    options_type = TensorRTLLM12Options
    precisions = (Precision.BF16, Precision.INT8_WO, Precision.INT8_SQ, Precision.FP8)
    instead: ClassVar[dict[Precision, str]] = {
        Precision.FP8_DYNAMIC: "it has no FP8 scales per token for Mamba's linears; use fp8"
    }
    executed = Executed.NEVER
    not_executed_note = (
        "Written, not executed: trtllm-build 1.2 runs on the GPU host. Its SSM state has 16 bits."
    )
    built = WRITTEN
    built_how = ((WRITTEN, "for the engine on the GPU host; names and types as it has them"),)

    def supports(self, compute_capability: str | None, precision: Precision) -> str | None:
        """Return why it lacks the precision on the GPU."""
        if compute_capability not in CAPABILITIES:
            return (
                f"backend tensorrt-llm-1.2 is for compute capability {', '.join(CAPABILITIES)}; "
                f"got {compute_capability}. Use --backend tensorrt-llm."
            )
        return super().supports(compute_capability, precision)

    def check(self, target: Target[TensorRTLLM12Options]) -> None:
        """Raise ConfigError unless 1.2 builds the checkpoint for so many of those GPUs."""
        from nemotrt.engines.backends.tensorrt_llm_1_2.support import check

        self.check_supported(target)
        check(target.checkpoint, target.capability, target.precision, target.options.tp_size)

    def build(self, target: Target[TensorRTLLM12Options], job: BuildJob) -> Payload:
        """Write a file a rank, the model class and the host's script."""
        from nemotrt.engines.backends.tensorrt_llm_1_2.export import notes, write_checkpoint

        tp_size = target.options.tp_size
        write_checkpoint(
            target.checkpoint,
            job.folder,
            job.limits,
            target.capability,
            target.precision,
            tp_size,
            job.report,
        )
        return Payload({}, notes(target.checkpoint, tp_size), {})

    def open(self, folder: Path, manifest: "Manifest", options: "OpenOptions") -> "Engine":
        """Refuse: trtllm-serve runs its engine."""
        raise EnvironmentUnfitError(
            f"{folder} is a checkpoint for TensorRT-LLM 1.2, whose engine trtllm-serve runs. Build "
            f"it on the GPU host: {self.host_steps(folder)}"
        )

    def host_steps(self, folder: Path) -> str | None:
        """Return what builds the engine on the GPU host."""
        from nemotrt.engines.backends.tensorrt_llm_1_2.export import host_command

        return host_command(folder)

    def planning(self, options: TensorRTLLM12Options) -> Planning:
        """Plan a 16-bit state and whole prompts: 1.2 packs what runs in a step."""
        return ForeignRuntime(
            "tensorrt-llm",
            FREE_GPU_MEMORY_FRACTION,
            has_16_bit_state=True,
            takes_whole_prompts=True,
            tp_size=options.tp_size,
        )


BACKEND = TensorRTLLM12Backend()
