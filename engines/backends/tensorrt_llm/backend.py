"""The tensorrt-llm backend, as one object."""

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
from nemotrt.engines.checkpoint.hub.cache import place_of
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError
from nemotrt.needs import TENSORRT_LLM, Ability, Need

if TYPE_CHECKING:
    from nemotrt.engines.artefact.manifest import Manifest
    from nemotrt.engines.artefact.weights import OpenOptions
    from nemotrt.engines.runtime.engine import Engine

WRITTEN = "written, not executed"


class TensorRTLLMBackend(Backend[TensorRTLLMOptions]):
    """Writes what `tensorrt_llm.LLM` needs beside the checkpoint, and drives it on the GPU host."""

    name = "tensorrt-llm"
    options_type = TensorRTLLMOptions
    # Source: docs/quantization.md, what the loaders take.
    precisions = (Precision.BF16, Precision.INT8_WO, Precision.FP8, Precision.FP8_DYNAMIC)
    instead: ClassVar[dict[Precision, str]] = {
        Precision.INT8_SQ: "its PyTorch backend has no INT8 W8A8 linears; use a checkpoint in "
        "int8-wo, or --backend tensorrt, which runs int8-sq"
    }
    executed = Executed.NEVER
    not_executed_note = "Written, not executed: TensorRT-LLM runs on the GPU host."
    built = WRITTEN
    built_how = ((WRITTEN, "for the engine on the GPU host; names and types as it has them"),)
    weights_place = "in the checkpoint"
    abilities = (Ability("serve with TensorRT-LLM here", (TENSORRT_LLM,), needs_gpu=True),)

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
        check(target.checkpoint, target.capability, target.options.tp_size)

    def build(self, target: Target[TensorRTLLMOptions], job: BuildJob) -> Payload:
        """Write its arguments."""
        from nemotrt.engines.backends.tensorrt_llm.bundle import weight_entries, write_bundle

        tp_size, is_code_trusted = target.options.tp_size, target.options.is_code_trusted
        write_bundle(
            target.checkpoint,
            job.folder,
            job.limits,
            target.capability,
            tp_size=tp_size,
            is_code_trusted=is_code_trusted,
        )
        job.report("weight digests")
        notes: Notes = {"tp_size": tp_size, "is_code_trusted": is_code_trusted}
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
        from nemotrt.engines.backends.tensorrt_llm.engine import check_installed

        return (*super().needs_here(folder, manifest), Need("TensorRT-LLM", check_installed))

    def planning(self, options: TensorRTLLMOptions) -> Planning:
        """Plan as it shares memory out."""
        return ForeignRuntime("tensorrt-llm", FREE_GPU_MEMORY_FRACTION, tp_size=options.tp_size)


BACKEND = TensorRTLLMBackend()
