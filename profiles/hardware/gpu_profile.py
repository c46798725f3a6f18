"""What a device can do: datasheet figures and measured corrections, one YAML file each."""

from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Generic, Literal, Self, TypeVar

import yaml
from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from nemotrt.errors import ConfigError, nearest_hint
from nemotrt.files.model_file import Strict, yaml_model
from nemotrt.files.text_file import read_text
from nemotrt.profiles.hardware.instance import Machine, instances

GPU_FOLDER = resources.files("nemotrt.profiles.hardware") / "gpus"

# Of products; the keys of a datasheet's rates.
Arithmetic = Literal["fp32", "bf16", "int8", "fp8"]
Number = TypeVar("Number", bound=float)


class Band(Strict, Generic[Number]):
    """A figure from its low to its high end, and where they were seen."""

    low: Number
    best: Number
    high: Number
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.best <= self.high:
            raise ValueError("must have low <= best <= high")
        return self


# A measured share of a datasheet figure.
Correction = Band[Annotated[float, Field(gt=0, le=1)]]


class Corrections(Strict):
    """The share of each datasheet figure that kernels reach; absent ones come from the defaults.

    Bandwidth shares apply to `bandwidth_gb_per_s`, compute shares to `tflops` of the data type.
    """

    gemm_bandwidth: Correction | None = None
    gemm_compute: Correction | None = None  # 16-bit and wider
    gemm_compute_8bit: Correction | None = None
    gemm_compute_decode: Correction | None = None  # of a decode step's few rows, if they differ
    attention_bandwidth: Correction | None = None
    attention_compute: Correction | None = None
    ssm_bandwidth: Correction | None = None
    ssm_compute: Correction | None = None
    interconnect_bandwidth: Correction | None = None
    power: Correction | None = None  # of the board's limit, while decoding

    def over(self, other: "Corrections") -> "Corrections":
        """Return these corrections, with those of `other` where these are absent."""
        return Corrections(**{**other.present(), **self.present()})

    def present(self) -> dict[str, Correction]:
        """Return the corrections that are given, by name."""
        return {name: value for name, value in self if value is not None}


class Datasheet(Strict):
    """What the maker or the driver says; None is a figure that nobody sourced."""

    memory_mib: PositiveInt  # visible to CUDA, not the nominal size
    bandwidth_gb_per_s: PositiveFloat
    tflops: dict[Arithmetic, PositiveFloat]  # dense
    l2_mib: PositiveFloat | None = None
    # A CPU's last-level cache: what fits in it is read at its own bandwidth. GPUs leave this out:
    # no model that is planned for one fits its L2.
    cache_mib: PositiveFloat | None = None
    cache_bandwidth_gb_per_s: PositiveFloat | None = None
    num_sms: PositiveInt | None = None
    tdp_w: PositiveFloat | None = None
    interconnect_gb_per_s: PositiveFloat | None = None  # to the other GPUs, each way
    host_link_gb_per_s: PositiveFloat | None = None  # to the host's memory, each way


class MeasuredWith(Strict):
    """The engine whose own kernels gave a CPU's figures, and its times outside of kernels.

    A profile with this section holds for that engine and precision only.
    """

    engine: str
    precision: str
    launch_overhead_us: NonNegativeFloat  # of each kernel
    row_overhead_us: NonNegativeFloat  # of each kernel for each sequence
    source: str = Field(min_length=1)


class GpuProfile(Strict):
    """One device: a GPU, or the CPU that this process runs on."""

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    product_names: tuple[str, ...] = ()  # as NVML says them; MIG slices add to them
    kind: Literal["gpu", "cpu"] = "gpu"
    architecture: str
    compute_capability: str | None = None
    # The 16-bit format that it multiplies in: fp16 where it has no bf16, at the rate `bf16`.
    half: Literal["bf16", "fp16"] = "bf16"
    datasheet: Datasheet
    sources: dict[str, str]
    notes: str = ""
    corrections: Corrections = Corrections()
    machine: Machine | None = None  # what holds it, where that was named
    measured_with: MeasuredWith | None = None  # of a CPU; GPUs serve any engine

    @property
    def is_fitted(self) -> bool:
        """Whether anything of it was measured."""
        return bool(self.corrections.present())

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory that CUDA shows."""
        return self.datasheet.memory_mib * 2**20


@cache
def _files() -> dict[str, Traversable]:
    """Return the shipped profiles by name; a folder each architecture."""
    paths = (path for folder in GPU_FOLDER.iterdir() for path in folder.iterdir())
    return {path.name.removesuffix(".yaml"): path for path in paths}


def known_gpus() -> list[str]:
    """Return the names of the GPU profiles that ship with the package."""
    return sorted(_files())


def load_gpu(name: str) -> GpuProfile:
    """Return the profile of a known GPU, a cloud's instance of it, or a user's own YAML file.

    Raises:
        ConfigError: no such name, or the file has an unknown key or a bad value.
    """
    if name.endswith((".yaml", ".yml")):
        return _read(Path(name), name)
    wanted = name.lower()
    names = known_gpus()
    if wanted in names:
        return _shipped(wanted)
    for known in names:
        if wanted in _shipped(known).aliases:
            return _shipped(known)
    if wanted in instances():
        gpu, machine = instances()[wanted]
        return _shipped(gpu).model_copy(update={"machine": machine})
    hint = nearest_hint(name, [*names, *instances()])
    known = ", ".join([*names, "this-machine", "FILE.yaml", "a cloud's instance as g5.2xlarge"])
    raise ConfigError(f"unknown GPU {name!r}{hint} Known: {known}.")


@cache
def _shipped(name: str) -> GpuProfile:
    return yaml_model(GpuProfile, _files()[name].read_text(encoding="utf-8"), f"{name}.yaml")


def _read(path: Path, source: str) -> GpuProfile:
    if not path.is_file():
        raise ConfigError(f"GPU profile {path} does not exist; known: {', '.join(known_gpus())}.")
    return yaml_model(GpuProfile, read_text(path), source)


def profile_yaml(gpu: GpuProfile) -> str:
    """Return the text of a profile file that `--gpu FILE` takes."""
    return yaml.safe_dump(gpu.model_dump(mode="json", exclude_none=True), sort_keys=False)
