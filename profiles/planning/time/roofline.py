"""How long an operator takes: the larger of its memory and its compute time; on a CPU their sum."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.errors import ConfigError
from nemotrt.profiles.hardware.gpu_profile import Correction, Corrections, GpuProfile
from nemotrt.profiles.planning.sources.number_format import peak_tflops
from nemotrt.profiles.planning.time.corrections import corrections_of
from nemotrt.profiles.planning.time.engine_profile import EngineProfile, Overhead
from nemotrt.profiles.planning.time.operators import Operator, Resource


class Scenario(StrEnum):
    """Which end of every correction's band; the floor is the datasheet without corrections."""

    LOW = "low"  # low throughput
    BEST = "best"
    HIGH = "high"  # high throughput
    FLOOR = "floor"  # nothing can be faster


@dataclass(frozen=True, slots=True)
class Roofline:
    """One GPU as one engine drives it, in one scenario; shares are of the datasheet."""

    gpu: GpuProfile
    engine: EngineProfile
    corrections: Corrections
    scenario: Scenario
    single: str = ""  # the one correction that is taken from the scenario; others stay best
    is_cached: bool = False  # whether all that a call touches stays in a CPU's cache
    is_decode: bool = False
    tp: int = 1

    def on_call(self, found: Sequence[Operator], is_decode: bool, tp: int = 1) -> "Roofline":
        """Return the roofline of a call of these operators, made again and again."""
        # A state is written where it was read: its bytes lie in a cache once.
        written = sum(o.num_bytes / 2 for o in found if o.resource is Resource.SSM)
        touched = sum(o.num_bytes for o in found) - written
        cache_mib = self.gpu.datasheet.cache_mib
        is_cached = cache_mib is not None and touched <= cache_mib * 2**20
        return replace(self, is_cached=is_cached, is_decode=is_decode, tp=tp)

    def share(self, name: str) -> float:
        """Return the share of the datasheet figure that correction `name` allows."""
        if self.scenario is Scenario.FLOOR:
            return 1.0
        correction: Correction | None = getattr(self.corrections, name)
        if correction is None:
            raise ConfigError(f"{self.gpu.name}: correction {name} is neither given nor defaulted.")
        end = Scenario.BEST if self.single and self.single != name else self.scenario
        value: float = getattr(correction, end.value)
        return value

    def overhead_s(self, num_launches: int, num_sequences: int) -> float:
        """Return the seconds of a call that no bytes and no products explain."""
        seen = self.gpu.measured_with
        if seen is not None:
            is_floor = self.scenario is Scenario.FLOOR
            each_us = seen.launch_overhead_us + num_sequences * seen.row_overhead_us
            return 0.0 if is_floor else num_launches * each_us / 1e6
        split = self.engine.tensor_parallel
        step_ms = self._overhead("step_overhead_ms")
        step_ms += math.log2(self.tp) * self._end_of("step_ms", split.step_ms)
        if not self.is_decode:
            step_ms += math.log2(self.tp) * self._end_of("prompt_ms", split.prompt_ms)
        sequence_us = self._overhead("sequence_overhead_us")
        sequence_us += (self.tp - 1) * self._end_of("sequence_us", split.sequence_us)
        return (
            step_ms / 1e3
            + num_launches * self._overhead("launch_overhead_us") / 1e6
            + num_sequences * sequence_us / 1e6
        )

    def request_s(self) -> float:
        """Return the seconds of a request outside of the engine's calls: HTTP, tokenizing."""
        return self._overhead("request_overhead_ms") / 1e3

    def host_s(self, num_sequences: int) -> float:
        """Return the seconds of the host's work beside a call, which is never shorter."""
        choosing = self.engine.choosing
        if choosing is None:
            return 0.0
        return num_sequences * self._end_of("host_us", choosing.host_us) / 1e6

    def _overhead(self, name: str) -> float:
        return self._end_of(name, getattr(self.engine, name))

    def _end_of(self, name: str, overhead: Overhead) -> float:
        """Return the scenario's end of a time; a low throughput has the high one."""
        if self.scenario is Scenario.FLOOR:
            return 0.0
        end = Scenario.BEST if self.single and self.single != name else self.scenario
        flipped = {Scenario.LOW: "high", Scenario.HIGH: "low", Scenario.BEST: "best"}
        value: float = getattr(overhead, flipped[end])
        return value

    def seconds(self, operator: Operator) -> float:
        """Return the operator's time."""
        if operator.resource is Resource.INTERCONNECT:
            return self._link_seconds(operator)
        memory, compute = self.memory_seconds(operator), self.compute_seconds(operator)
        # A core that waits for memory multiplies nothing; a GPU has other warps for that.
        # Source: measured, 2-core Zen 5, 2026-11-28: linears of 268 MB in float32, ONNX Runtime, 1
        # to 64 rows: the sum is off by 15 % at most, the maximum by 45 %.
        is_sum = self.gpu.kind == "cpu" and self.scenario is not Scenario.FLOOR
        return memory + compute if is_sum else max(memory, compute)

    def memory_seconds(self, operator: Operator) -> float:
        """Return the time to move the operator's bytes."""
        name = {
            Resource.ATTENTION: "attention_bandwidth",
            Resource.SSM: "ssm_bandwidth",
        }.get(operator.resource, "gemm_bandwidth")
        datasheet = self.gpu.datasheet
        bandwidth = datasheet.bandwidth_gb_per_s
        if self.is_cached:
            bandwidth = datasheet.cache_bandwidth_gb_per_s or bandwidth
        share = self.share(name)
        if operator.has_8bit_cache and self.scenario is not Scenario.FLOOR:
            share = min(share * self.engine.attention_8bit_factor, 1.0)
        return operator.num_bytes / (bandwidth * 1e9 * share)

    def compute_seconds(self, operator: Operator) -> float:
        """Return the time to do the operator's products."""
        if not operator.num_flops:
            return 0.0
        name = {
            Resource.ATTENTION: "attention_compute",
            Resource.SSM: "ssm_compute",
        }.get(operator.resource, "gemm_compute")
        if name == "gemm_compute" and operator.arithmetic in (NumberFormat.FP8, NumberFormat.INT8):
            name = "gemm_compute_8bit"
        if self.is_decode and name.startswith("gemm") and self.corrections.gemm_compute_decode:
            name = "gemm_compute_decode"
        share = self.share(name)
        if name == "gemm_compute_8bit" and self.scenario is not Scenario.FLOOR:
            share = min(share * self.engine.gemm_8bit_factor, 1.0)
        rate = peak_tflops(self.gpu, operator.arithmetic) * 1e12 * share
        return max(operator.num_flops / rate, self._cuda_core_seconds(operator))

    def _cuda_core_seconds(self, operator: Operator) -> float:
        """Return the time of a decode attention that does not use tensor cores, else 0."""
        per_sm = self.engine.attention_elements_per_s_per_sm
        if per_sm is None or self.scenario is Scenario.FLOOR or not operator.num_head_elements:
            return 0.0
        if self.gpu.datasheet.num_sms is None:
            raise ConfigError(f"{self.gpu.name}: num_sms is missing from its datasheet section.")
        return operator.num_head_elements / (per_sm * self.gpu.datasheet.num_sms)

    def _link_seconds(self, operator: Operator) -> float:
        rate = self.gpu.datasheet.interconnect_gb_per_s
        if rate is None:
            raise ConfigError(f"{self.gpu.name}: interconnect_gb_per_s is missing; --tp needs it.")
        moved = operator.num_bytes / (rate * 1e9 * self.share("interconnect_bandwidth"))
        split = self.engine.tensor_parallel
        each_us = self._end_of("all_reduce_us", split.all_reduce_us)
        each_us += math.log2(self.tp / 2) * self._end_of("more_us", split.all_reduce_more_us)
        return moved + operator.num_launches * each_us / 1e6


def roofline(
    gpu: GpuProfile, engine: EngineProfile, scenario: Scenario, single: str = ""
) -> Roofline:
    """Return the GPU under `engine` in `scenario`; absent corrections are the defaults."""
    return Roofline(gpu, engine, corrections_of(gpu), scenario, single)
