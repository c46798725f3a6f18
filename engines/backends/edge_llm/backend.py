"""The edge-llm backend, as one object."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from nemotrt.engines.backends.protocol.backend import Backend, BuildJob, Executed, Payload, Target
from nemotrt.engines.backends.protocol.options import NoOptions
from nemotrt.engines.backends.protocol.planning import ForeignRuntime, Planning
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.needs import Ability

if TYPE_CHECKING:
    from nemotrt.engines.artefact.manifest import Manifest
    from nemotrt.engines.artefact.options import OpenOptions
    from nemotrt.engines.runtime.engine import Engine

# Sources: tensorrt-edgellm 0.11.0: its wheel's payloads (SM80, 86, 100, 120), cpp/CMakeLists.txt
# (89 from source), and the maintainers on SM90 (NVIDIA/TensorRT-Edge-LLM#64).
CAPABILITIES = ("8.0", "8.6", "8.9", "10.0", "12.0")
EXPORTED = "exported, not executed"


def check_exporter() -> None:
    """Raise EnvironmentUnfitError where Edge-LLM's exporter is not installed."""
    from nemotrt.engines.backends.edge_llm.exporter import find_exporter

    find_exporter()


class EdgeLLMBackend(Backend[NoOptions]):
    """Exports the graph of NVIDIA's own exporter, and checks it."""

    name = "edge-llm"
    options_type = NoOptions
    precisions = (Precision.BF16, Precision.INT8_SQ, Precision.FP8)
    instead: ClassVar[dict[Precision, str]] = {
        Precision.INT8_WO: "its exporter would take the codes for weights; use int8-sq or bf16",
        Precision.FP8_DYNAMIC: "it has static FP8 scales only; use fp8",
    }
    executed = Executed.NEVER
    not_executed_note = "Exported, not executed: the engine is built on the GPU host."
    built = EXPORTED
    built_how = ((EXPORTED, "by NVIDIA's exporter, here; the engine is built on the GPU host"),)
    abilities = (Ability("export for TensorRT Edge-LLM here (edge-llm)", check=check_exporter),)

    def supports(self, compute_capability: str | None, precision: Precision) -> str | None:
        """Return why it lacks the precision on the GPU."""
        if compute_capability not in CAPABILITIES:
            return (
                f"Edge-LLM has no attention kernels for compute capability {compute_capability}; "
                f"it has them for {', '.join(CAPABILITIES)}. For H100 use --backend tensorrt-llm."
            )
        return super().supports(compute_capability, precision)

    def check(self, target: Target[NoOptions]) -> None:
        """Raise ConfigError unless Edge-LLM makes an engine of the checkpoint for that GPU."""
        from nemotrt.engines.backends.edge_llm.support import check

        self.check_supported(target)
        check(target.checkpoint, target.capability)

    def build(self, target: Target[NoOptions], job: BuildJob) -> Payload:
        """Export the graph, check it, and write the host's script."""
        from nemotrt.engines.backends.edge_llm.export import write_export
        from nemotrt.engines.backends.edge_llm.support import notes

        version, num_quantized = write_export(target.checkpoint, job.folder, job.limits, job.report)
        found = notes(target.checkpoint, job.limits)
        found["num_quantized_linears"] = num_quantized
        return Payload({"tensorrt-edgellm": version}, found, {})

    def open(self, folder: Path, manifest: "Manifest", options: "OpenOptions") -> "Engine":
        """Refuse: Edge-LLM serves its engine itself."""
        raise EnvironmentUnfitError(
            f"{folder} is a graph for Edge-LLM, which serves its engine itself. Build it on the "
            f"GPU host: {self.host_steps(folder)}"
        )

    def host_steps(self, folder: Path) -> str | None:
        """Return what builds the engine on the GPU host."""
        from nemotrt.engines.backends.edge_llm.export import host_command

        return host_command(folder)

    def planning(self, options: NoOptions) -> Planning:
        """Plan a 16-bit state, and room for a prompt of every sequence.

        Source: its developer guide, Engine Builder: the context profile has a longest prompt for
        every sequence (0.4.0; not seen for 0.11).
        """
        return ForeignRuntime(
            "nemotrt",
            has_16_bit_state=True,
            takes_whole_prompts=True,
            has_all_prompts_at_once=True,
        )


BACKEND = EdgeLLMBackend()
