"""A CPU's rates as a profile that the planner takes."""

from dataclasses import dataclass
from typing import cast

from nemotrt.engines.model.numerics import Precision
from nemotrt.profiles.hardware.gpu_profile import (
    Arithmetic,
    Correction,
    Corrections,
    Datasheet,
    GpuProfile,
    MeasuredWith,
)
from nemotrt.profiles.planning.time.engine_profile import load_engine

NEIGHBOURS = "the probe's fastest steps; a busy machine is slower"
NOT_SEPARATE = "not measured apart"


@dataclass(frozen=True, slots=True)
class Machine:
    """What the operating system says of a CPU."""

    title: str
    memory_mib: int
    cache_mib: float | None
    notes: str = ""


@dataclass(frozen=True, slots=True)
class Rates:
    """What a CPU does with an engine: bytes, products and seconds."""

    bandwidth: float = 1e12
    cache_bandwidth: float = 1e12
    products: float = 1e15  # of a prompt
    decode_products: float = 1e15
    state_bandwidth: float = 1e12
    state_products: float = 1e15
    launch_s: float = 0.0
    row_s: float = 0.0  # of each kernel for each sequence

    @property
    def peak_products(self) -> float:
        """Return what the shares of compute are of."""
        return max(self.products, self.decode_products)

    @property
    def peak_bandwidth(self) -> float:
        """Return what the shares of bandwidth are of."""
        return max(self.bandwidth, self.state_bandwidth)


def profile_of(machine: Machine, engine: str, precision: Precision, rates: Rates) -> GpuProfile:
    """Return a CPU of these rates."""
    cache_bandwidth = (
        rates.cache_bandwidth * rates.peak_bandwidth / rates.bandwidth
    )  # before its share
    widened = load_engine(engine).widened
    arithmetics = {precision.arithmetic, widened or precision.floats}
    source = f"measured with {engine} {precision}: {NEIGHBOURS}"
    return GpuProfile(
        name="this-machine",
        title=machine.title,
        kind="cpu",
        architecture="cpu",
        datasheet=Datasheet(
            memory_mib=machine.memory_mib,
            bandwidth_gb_per_s=_rounded(rates.peak_bandwidth / 1e9),
            tflops=dict.fromkeys(
                (cast("Arithmetic", a.value) for a in arithmetics),
                _rounded(rates.peak_products / 1e12),
            ),
            cache_mib=machine.cache_mib,
            cache_bandwidth_gb_per_s=_rounded(cache_bandwidth / 1e9),
        ),
        sources={
            "memory": "MemAvailable of /proc/meminfo, or what the container leaves",
            "bandwidth": source,
            "tflops": source,
        },
        notes=machine.notes,
        corrections=_corrections(source, rates),
        measured_with=MeasuredWith(
            engine=engine,
            precision=precision.value,
            launch_overhead_us=_rounded(rates.launch_s * 1e6),
            row_overhead_us=_rounded(rates.row_s * 1e6),
            source=source,
        ),
    )


def _corrections(source: str, rates: Rates) -> Corrections:
    """Return the shares; the probe's fastest steps are seldom beaten, and often missed."""

    def seen(share: float) -> Correction:
        return Correction(low=0.8 * share, best=share, high=min(1.1 * share, 1.0), source=source)

    bandwidth, peak = rates.peak_bandwidth, rates.peak_products
    return Corrections(
        gemm_bandwidth=seen(rates.bandwidth / bandwidth),
        gemm_compute=seen(rates.products / peak),
        gemm_compute_decode=seen(rates.decode_products / peak),
        ssm_bandwidth=seen(rates.state_bandwidth / bandwidth),
        ssm_compute=seen(min(rates.state_products / peak, 1.0)),
        attention_bandwidth=Correction(low=0.3, best=0.6, high=1.0, source=NOT_SEPARATE),
        attention_compute=Correction(low=0.2, best=0.5, high=1.0, source=NOT_SEPARATE),
    )


def _rounded(value: float) -> float:
    """Return four significant figures."""
    return float(f"{value:.4g}")
