"""What a check found, as one object, as JSON and as lines; and the file that is to be sent."""

import dataclasses
import json
import platform
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nemotrt.build.check.result.engine_check import EngineCheck
from nemotrt.build.check.result.fault import Fault, Outcome, Stage
from nemotrt.build.check.result.rows import KernelCheck, KernelRow
from nemotrt.charts.number import number
from nemotrt.errors import EnvironmentUnfitError, NemotrtError
from nemotrt.files.writing import write_file
from nemotrt.profiles.hardware.nvml.device import select_devices
from nemotrt.profiles.hardware.nvml.gpu_trace import GpuFacts, GpuSample
from nemotrt.profiles.hardware.nvml.library import NvmlAbsentError, nvml_session
from nemotrt.profiles.hardware.nvml.reading import read_facts, read_sample

REPORT_FILE = "nemotrt-check.json"
PACKAGES = ("nemotrt", "numpy", "cuda-bindings", "tensorrt", "onnxruntime")


@dataclasses.dataclass(frozen=True, slots=True)
class GpuSeen:
    """The GPU that was computed on: CUDA's name for it, and what NVML says, or why it does not."""

    name: str | None
    facts: GpuFacts | None
    sample: GpuSample | None
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Predicted:
    """What the planner would have said of an engine; nothing in it was measured.

    `decode_tokens_per_s` None: it says nothing, for the reason of `note`.
    """

    backend: str
    decode_tokens_per_s: float | None
    note: str = ""

    def __str__(self) -> str:
        """Return the line for a person."""
        if self.decode_tokens_per_s is None:
            return f"{self.backend}: {self.note}"
        return f"{self.backend}: decode {number(self.decode_tokens_per_s)} tokens/s, not measured"


@dataclasses.dataclass(frozen=True, slots=True)
class CheckReport:
    """One check; `kernels` None: they were not asked for, or there is no GPU."""

    schema_version: int
    at: str
    python: str
    platform: str
    packages: dict[str, str | None]
    gpu: GpuSeen
    kernels: KernelCheck | None = None
    engines: tuple[EngineCheck, ...] = ()
    predicted: tuple[Predicted, ...] = ()

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All that does not hold."""
        of_kernels = self.kernels.faults if self.kernels else []
        return (*of_kernels, *(fault for each in self.engines for fault in each.faults))

    @property
    def has_gpu(self) -> bool:
        """Whether a GPU was asked for, or computed."""
        return self.kernels is not None or any(each.gpu for each in self.engines)

    def worst(self) -> Fault | None:
        """The first fault of those that say most; None where all holds."""
        return min(self.faults, key=lambda fault: fault.outcome.exit_code, default=None)

    @property
    def outcome(self) -> Outcome:
        """What all of it says of this machine."""
        worst = self.worst()
        return worst.outcome if worst else Outcome.RIGHT

    @property
    def exit_code(self) -> int:
        """What the command ends with."""
        return self.outcome.exit_code

    def is_for_maintainers(self) -> bool:
        """Whether they must see it: a wrong result, or own kernels that can't be tried."""
        return any(
            fault.outcome is Outcome.WRONG
            or (fault.outcome is Outcome.UNTRIED and fault.stage in (Stage.COMPILE, Stage.LOAD))
            for fault in self.faults
        )

    @property
    def verdict(self) -> str:
        """The one sentence that a reader needs first."""
        match self.outcome:
            case Outcome.WRONG:
                return f"This machine does not compute right: {self.worst()}"
            case Outcome.UNTRIED:
                return f"Not checked, it could not be tried: {self.worst()}"
            case Outcome.LACKING:
                return f"Not checked, this machine lacks something: {self.worst()}"
        names = [f"{each.engine} ({each.backend})" for each in self.engines]
        names += [f"our CUDA kernels ({self.gpu_name})"] if self.kernels else []
        return f"Computed right here: {', '.join(names)}."

    @property
    def gpu_name(self) -> str:
        """What CUDA calls the GPU."""
        return self.gpu.name or "none"

    def to_json(self) -> str:
        """Return one JSON object."""
        return json.dumps({**_plain(self), "exit_code": self.exit_code, "verdict": self.verdict})


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; a NaN as text."""
    if isinstance(value, GpuFacts | GpuSample):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value):
        names = [item.name for item in dataclasses.fields(value)]
        names += [name for name, kind in vars(type(value)).items() if isinstance(kind, property)]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and value - value != 0 else value


def new_report(
    gpu: GpuSeen,
    kernels: KernelCheck | None,
    engines: Sequence[EngineCheck] = (),
    predicted: Sequence[Predicted] = (),
) -> CheckReport:
    """Return the report of what was found on this machine now."""
    return CheckReport(
        1,
        datetime.now(UTC).isoformat(timespec="seconds"),
        platform.python_version(),
        platform.platform(),
        {name: _version(name) for name in PACKAGES},
        gpu,
        kernels,
        tuple(engines),
        tuple(predicted),
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def see_gpu(identity: tuple[str, str] | None) -> GpuSeen:
    """Return what NVML says now of the GPU, by name and UUID, that was computed on, if one was."""
    if identity is None:
        return GpuSeen(None, None, None, "not asked: nothing was computed on a GPU")
    name, uuid = identity
    try:
        with nvml_session() as nvml:
            [device] = select_devices(nvml, (uuid,)).devices
            return GpuSeen(
                name, read_facts(device), read_sample(device, lambda: 0.0, with_slow=False)
            )
    except NvmlAbsentError as error:
        return GpuSeen(name, None, None, error.reason)
    except NemotrtError as error:
        return GpuSeen(name, None, None, error.message)


def lines(report: CheckReport) -> list[str]:
    """Return the report for a person."""
    facts, sample = report.gpu.facts, report.gpu.sample
    found = [f"gpu        {report.gpu_name}"] if report.has_gpu else []
    if report.gpu.note and report.has_gpu:
        found.append(f"nvml       {report.gpu.note}")
    if facts and sample:
        clock = sample.sm_clock_mhz
        found.append(f"driver     {facts.driver}, CUDA {facts.cuda_driver}")
        found.append(f"clocks     SM {clock} of {facts.max_sm_clock_mhz} MHz")
    for engine in report.engines:
        found += ["", *engine.lines]
    if report.predicted:
        found += ["", *(f"predicted  {each}" for each in report.predicted)]
    if report.kernels and report.kernels.compute_capability:
        compiled = report.kernels.compiler or "nothing yet"
        found.append(f"compiled   for {report.kernels.compute_capability} by {compiled}")
    if report.kernels and report.kernels.rows:
        found += ["", *aligned([HEADS, *map(row_cells, report.kernels.rows)])]
    return [*found, "", report.verdict][0 if report.has_gpu else 1 :]


HEADS = ("kernel", "case", "seq", "tokens", "off by", "bound", "us", "copy us", "GB/s", "of copy")


def row_cells(row: KernelRow) -> tuple[str, ...]:
    """Return a row's cells."""
    worst = row.worst
    counts = str(row.sequences), str(row.tokens)
    cells = row.kernel, row.case, *counts, f"{worst.error:.2g}", f"{worst.bound:g}"
    if row.timing is None:
        return (*cells, "", "", "", "")
    time = row.timing
    figures = (f"{time.us:.1f}", f"{time.copy_us:.1f}", f"{time.gb_per_s:.1f}")
    return (*cells, *figures, f"{time.copy_share:.0%}")


def aligned(table: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def write_report(report: CheckReport) -> Path:
    """Write the file that is to be sent: here, or where this folder takes no file; return it."""
    text = report.to_json() + "\n"
    with suppress(OSError, NemotrtError):
        write_file(Path.cwd() / REPORT_FILE, text)
        return Path.cwd() / REPORT_FILE
    try:
        elsewhere = Path(tempfile.mkdtemp(prefix="nemotrt-check-")) / REPORT_FILE
    except OSError as error:
        raise EnvironmentUnfitError(
            f"{REPORT_FILE} can't be written here, nor in a temporary folder: {error.strerror}; "
            "run check in a folder that you can write to."
        ) from error
    write_file(elsewhere, text)
    return elsewhere


def to_send(report: CheckReport) -> str:
    """Write the report file, and return what is to be done with it."""
    path = write_report(report)
    return f"Please send {path} to the maintainers of nemotrt, in an issue of the project."
