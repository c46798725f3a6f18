"""What a backend is: one object, from which every list, table and choice of backends derives."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from nemotrt.engines.backends.protocol.compute_capability import FIRST_BF16, has_bf16, has_fp8
from nemotrt.engines.backends.protocol.local_gpu import check_gpu, local_compute_capability
from nemotrt.engines.backends.protocol.planning import NotPlanned, Planning
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.errors import ConfigError
from nemotrt.needs import Ability, Need

if TYPE_CHECKING:  # numpy stays out: the planner reads backends too
    from nemotrt.engines.artefact.manifest import Manifest, WeightInput
    from nemotrt.engines.artefact.options import OpenOptions
    from nemotrt.engines.checkpoint.checkpoint import Checkpoint
    from nemotrt.engines.runtime.engine import Engine, Limits

Own = TypeVar("Own")  # the Options of a backend
Notes = dict[str, str | int | float | bool]
NO_FP8 = "no: no FP8 arithmetic"
NO_BF16 = "no: no bf16 arithmetic"


class Executed(StrEnum):
    """Whether what a backend builds has run: a manifest's `executed` is true for HERE alone."""

    HERE = "here"  # built, run and tested on the machine that builds
    NEVER = "never"  # no GPU ran it


@dataclass(frozen=True, slots=True)
class Target(Generic[Own]):
    """What is to be built, with every choice made.

    Attributes:
        checkpoint: the source of the weights.
        precision: what the linear layers compute in.
        stored: the checkpoint's own precision, if it is quantized; else None.
        gpu: the name of a GPU profile; None for a CPU backend.
        compute_capability: NVIDIA's, such as "8.6"; None for a CPU backend.
        options: the backend's own.
    """

    checkpoint: "Checkpoint"
    precision: Precision
    stored: Precision | None
    gpu: str | None
    compute_capability: str | None
    options: Own

    @property
    def capability(self) -> str:
        """The compute capability, which every GPU backend's target has."""
        if self.compute_capability is None:
            raise ConfigError("a GPU backend's target has no compute capability.")
        return self.compute_capability


@dataclass(frozen=True, slots=True)
class BuildJob:
    """Where a payload goes, and with which limits.

    Attributes:
        folder: an empty one, which becomes the engine directory when all is written.
        limits: in sequences and tokens.
        report: called with the name of each stage as it begins.
    """

    folder: Path
    limits: "Limits"
    report: Callable[[str], None] = lambda stage: None


@dataclass(frozen=True, slots=True)
class Payload:
    """What a manifest says of a payload beside its files.

    Attributes:
        tools: name -> version of what built it.
        notes: facts that the backend's `open` reads again.
        weights: name -> where each weight lies that stays in the checkpoint.
    """

    tools: Mapping[str, str]
    notes: Notes
    weights: Mapping[str, "WeightInput"]


class Backend(ABC, Generic[Own]):
    """What builds engines of one kind, and opens them; it has no state.

    Its module imports nothing heavy: what a method needs, the method imports.
    """

    name: ClassVar[str]
    options_type: type[Own]
    is_cpu: ClassVar[bool] = False  # a CpuBackend: it takes --threads and no --gpu
    precisions: ClassVar[tuple[Precision, ...]]  # that its kernels have on some GPU
    has_experts: ClassVar[bool] = False  # it takes blocks of experts
    instead: ClassVar[Mapping[Precision, str]] = {}  # why not another, and what to take
    executed: ClassVar[Executed]
    not_executed_note: ClassVar[str] = ""  # said after a build that NEVER ran
    times_operations: ClassVar[bool] = False  # `profile engine` reads its program
    state_element_bytes: ClassVar[int | None] = None  # None: the runtime is somebody else's
    weights_place: ClassVar[str] = "inside"  # where they are, unless they are bound at load
    built: ClassVar[str]  # the table's word for what it builds
    built_how: ClassVar[tuple[tuple[str, str], ...]] = ()  # the table's legend, by word
    table_notes: ClassVar[tuple[str, ...]] = ()
    has_own_python: ClassVar[bool] = False  # it may run in a Python that the user names
    rounds_inputs: ClassVar[bool] = False  # those of linears with codes, to 8 bits, whatever asked
    takes_adapters: ClassVar[bool] = False  # that run beside its weights, by --lora NAME=DIR
    takes_drafts: ClassVar[bool] = False  # tokens that a step guesses, by --speculate
    maps_weights: ClassVar[bool] = False  # by --weight-pages; its threads are ours
    abilities: ClassVar[tuple[Ability, ...]] = ()

    def supports(self, compute_capability: str | None, precision: Precision) -> str | None:
        """Return why it lacks that precision on that GPU, for any model; None if it has it."""
        if precision not in self.precisions:
            why = self.instead.get(precision, f"it has {', '.join(self.precisions)}")
            return f"backend {self.name} does not build {precision}: {why}."
        return self.lacks_arithmetic(compute_capability, precision)

    def lacks_arithmetic(self, compute_capability: str | None, precision: Precision) -> str | None:
        """Return what to say of a GPU that has no bf16, or no FP8 where products are; else None."""
        if compute_capability is not None and not has_bf16(compute_capability):
            return (
                f"compute capability {compute_capability} has no bf16 arithmetic, which every "
                f"engine for GPUs needs: take one of {FIRST_BF16} or later, or a CPU backend."
            )
        if precision.arithmetic is not NumberFormat.FP8 or has_fp8(compute_capability):
            return None
        others = [p for p in reversed(self.precisions) if p.arithmetic is not NumberFormat.FP8]
        return (
            f"compute capability {compute_capability} has no FP8 arithmetic; use a checkpoint in "
            f"{', '.join(others[:-1])} or {others[-1]}."
        )

    def check_supported(self, target: Target[Own]) -> None:
        """Raise ConfigError unless it has the target's precision on its GPU."""
        if reason := self.supports(target.compute_capability, target.precision):
            raise ConfigError(reason)

    @abstractmethod
    def check(self, target: Target[Own]) -> None:
        """Raise, before any work, unless all of that goes together and can be built here.

        Raises:
            ConfigError: the choices or the model don't fit.
            EnvironmentUnfitError: what builds it is not on this machine.
        """

    def check_memory(self, target: Target[Own]) -> None:
        """Raise EnvironmentUnfitError unless this machine has the memory to build it."""

    @abstractmethod
    def build(self, target: Target[Own], job: BuildJob) -> Payload:
        """Write the payload into `job.folder`; return what the manifest says of it.

        Raises:
            ConfigError: the model or a choice does not fit.
            EnvironmentUnfitError: a tool, memory or disk space is missing.
        """

    @abstractmethod
    def open(self, folder: Path, manifest: "Manifest", options: "OpenOptions") -> "Engine":
        """Return the running engine of an engine directory.

        Raises:
            EnvironmentUnfitError: it does not run here; the message has the next step.
            ArtefactError: the checkpoint with its weights has gone or changed.
        """

    def check_payload(self, folder: Path) -> None:
        """Check that `open` reads the form of a payload, which an earlier version may have written.

        Raises:
            ArtefactError: it does not; the message says to build the engine again.
        """

    def reads_checkpoint(self, manifest: "Manifest") -> bool:
        """Whether the engine reads its weights from a checkpoint when it is opened."""
        return bool(manifest.weights)

    def needs_here(self, folder: Path, manifest: "Manifest") -> tuple[Need, ...]:
        """Return what opening the engine asks of this machine, in the order of asking."""
        if self.host_steps(folder) is not None:  # another program runs it, as `open` says
            from nemotrt.engines.artefact.options import AS_BUILT

            return (Need("runtime", lambda: self.open(folder, manifest, AS_BUILT)),)
        return (Need("GPU", lambda: check_gpu(folder, manifest, local_compute_capability())),)

    def host_steps(self, folder: Path) -> str | None:
        """Return the commands for the GPU host; None if `open` runs the engine."""
        return None

    def planning(self, options: Own) -> Planning:
        """Return how the planner finds the limits of an engine that is built without them."""
        return NotPlanned()

    def server_file(
        self, limits: "Limits", *, tp_size: int, has_fp8_cache: bool, cache: Mapping[str, object]
    ) -> str:
        """Return the text of the file that its own server reads, with these fields of its caches.

        Raises:
            ConfigError: its server reads none.
        """
        raise ConfigError(f"{self.name} has no server of its own that reads a file.")

    def planned(self, options: Own, model: ModelConfig, snapshots: int) -> tuple[Own, str]:
        """Return the options as the planner would set them, and a note to print ("" for none).

        Args:
            options: the user's.
            model: the checkpoint's.
            snapshots: tokens between two kept states of a prompt, for a runtime whose configuration
                names the points.
        """
        return options, ""

    def table_cell(self, compute_capability: str, precision: Precision) -> str:
        """Return what `build --list` says of a GPU and a precision."""
        reason = self.supports(compute_capability, precision)
        if reason is None:
            return self.built
        return next((cell for cell in (NO_FP8, NO_BF16) if cell.partition(": ")[2] in reason), "no")

    def print_layers(self, folder: Path, manifest: "Manifest", *, as_json: bool) -> None:
        """Print what the compiler made of the graph.

        Raises:
            ConfigError: the engine has no layer report.
        """
        raise ConfigError(f"{folder} has no layers.json: only TensorRT plans have one.")


class CpuBackend(Backend[Own]):
    """A backend whose engines run on this machine's CPU, with states in float32."""

    is_cpu = True
    executed = Executed.HERE
    built = "run and tested here"
    state_element_bytes = 4

    @abstractmethod
    def load(self, folder: Path, limits: "Limits", num_threads: int | None) -> "Engine":
        """Return the running engine of a payload; by default on all of the process's CPUs."""

    def open(self, folder: Path, manifest: "Manifest", options: "OpenOptions") -> "Engine":
        """Return the running engine of an engine directory."""
        return self.load(folder, manifest.engine_limits, options.num_threads)

    def needs_here(self, folder: Path, manifest: "Manifest") -> tuple[Need, ...]:
        """Return what opening the engine asks of this machine: nothing but the package itself."""
        return ()

    def is_fast_here(self) -> bool:
        """Whether this machine runs it faster than those before it in the registry.

        Raises:
            EnvironmentUnfitError: it does not run here.
        """
        return True


AnyBackend = Backend[Any]
