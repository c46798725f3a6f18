"""The native backend, as one object."""

from pathlib import Path
from typing import TYPE_CHECKING

from nemotrt.engines.backends.native.program.options import NativeOptions, StateFormat
from nemotrt.engines.backends.protocol.backend import BuildJob, CpuBackend, Notes, Payload, Target
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.speculation.options import num_guesses
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.needs import Ability, Need

if TYPE_CHECKING:
    from nemotrt.engines.artefact.manifest import Manifest
    from nemotrt.engines.artefact.options import OpenOptions
    from nemotrt.engines.runtime.engine import Engine, Limits


def check_step() -> None:
    """Raise EnvironmentUnfitError where there is neither a compiled step nor a C++ compiler."""
    from nemotrt.engines.backends.native.library.library import check_available

    check_available()


def check_huge_pages() -> None:
    """Raise EnvironmentUnfitError where the system gives no huge pages to those that ask."""
    from nemotrt.engines.backends.native.pages import has_huge_pages

    if not has_huge_pages():
        raise EnvironmentUnfitError(
            "the system gives none: as root, echo madvise > "
            "/sys/kernel/mm/transparent_hugepage/enabled"
        )


class NativeBackend(CpuBackend[NativeOptions]):
    """Runs on this CPU, fastest where its vector kernels do."""

    name = "native"
    options_type = NativeOptions
    # Of any checkpoint; the other precisions need codes that the checkpoint stores.
    precisions = (Precision.FP32, Precision.BF16, Precision.INT8_WO, Precision.INT4_WO)
    times_operations = True
    takes_drafts = True
    maps_weights = True
    takes_adapters = True
    has_experts = True
    abilities = (
        Ability("run faster on the CPU (native)", check=check_step),
        Ability("keep Mamba states in huge pages (native)", check=check_huge_pages),
        Ability("choose tokens in compiled code, not by NumPy", check=check_step),
    )

    def supports(self, compute_capability: str | None, precision: Precision) -> str | None:
        """Return why not every checkpoint can be built in the precision."""
        if precision in self.precisions:
            return None
        names = ", ".join(self.precisions)
        return (
            f"backend native builds {precision} from a checkpoint quantized to it: first run "
            f"nemotrt quantize --recipe {precision}. From any checkpoint it builds {names}."
        )

    def check(self, target: Target[NativeOptions]) -> None:
        """Raise unless the checkpoint holds what the precision needs, and the step is here."""
        config = target.checkpoint.config
        if target.options.ssm_state is not StateFormat.FLOAT32 and config.mamba is None:
            raise ConfigError(
                f"--ssm-state is for models with Mamba layers; {config.model_type} has none."
            )
        has_cache = config.num_attention_layers > 0
        if target.options.kv_cache is not StateFormat.FLOAT32 and not has_cache:
            raise ConfigError("--kv-cache is for models with attention layers; this one has none.")
        reason = self.supports(None, target.precision)
        if reason and target.precision is not target.stored:
            raise ConfigError(reason)
        check_step()

    def build(self, target: Target[NativeOptions], job: BuildJob) -> Payload:
        """Write the program and its packed weights."""
        from nemotrt.engines.backends.native import export

        options = target.options
        export.export(target.checkpoint, job.folder, job.limits, target.precision, options)
        formats: Notes = {"ssm_state": options.ssm_state.value, "kv_cache": options.kv_cache.value}
        return Payload(export.tools(), formats, {})

    def load(self, folder: Path, limits: "Limits", num_threads: int | None) -> "Engine":
        """Return the open engine, which takes no guesses."""
        from nemotrt.engines.backends.native.engine import NativeEngine

        return NativeEngine(folder, limits, num_threads)

    def open(self, folder: Path, manifest: "Manifest", options: "OpenOptions") -> "Engine":
        """Return the running engine of an engine directory."""
        from nemotrt.engines.backends.native.engine import NativeEngine
        from nemotrt.engines.checkpoint.lora.adapter import open_adapter
        from nemotrt.engines.model.hf_config import read_model_config

        origin, config = manifest.checkpoint.origin, read_model_config(folder)
        base = origin.repository if origin else None
        guesses = num_guesses(options.speculate)
        return NativeEngine(
            folder,
            manifest.engine_limits,
            options.num_threads,
            max_draft=guesses + 1 if guesses else 0,
            weight_pages=options.weight_pages,
            pins_threads=options.pins_threads,
            adapters={one.name: open_adapter(one.path, config, base) for one in options.lora},
        )

    def check_payload(self, folder: Path) -> None:
        """Raise ArtefactError for a program that this version does not read."""
        from nemotrt.engines.backends.native.program.program import read_program

        read_program(folder)

    def needs_here(self, folder: Path, manifest: "Manifest") -> tuple[Need, ...]:
        """Return what opening the engine asks of this machine."""
        return (Need("compiled step", check_step),)

    def is_fast_here(self) -> bool:
        """Whether this CPU runs more than the portable kernels, which ONNX Runtime outruns."""
        from nemotrt.engines.backends.native.export import has_vector_kernels

        check_step()
        return has_vector_kernels()


BACKEND = NativeBackend()
