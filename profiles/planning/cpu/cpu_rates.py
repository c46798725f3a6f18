"""From the probe's timings to a CPU's profile: the rates under which the planner predicts them.

A step takes bytes / bandwidth + products / rate + overheads. The same linears for one row and for
8 give bandwidth and a decode step's rate, for 64 a prompt's; a model of small kernels gives the
overheads, a model of states the rate of the scan, in the cache, and that of moving states in
memory. Each is solved with the others as they are, in a few passes, since a little of each is in
all timings.
"""

from dataclasses import dataclass, replace
from functools import cache

from nemotrt.engines.model.hf_config import parse_model_config
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.profiles.hardware.gpu_profile import (
    GpuProfile,
)
from nemotrt.profiles.planning.cpu.probe_models import BATCH_SIZE, GEMM_ROWS, PROBE_MODELS
from nemotrt.profiles.planning.cpu.rates_profile import Machine, Rates, profile_of
from nemotrt.profiles.planning.time.engine_profile import load_engine
from nemotrt.profiles.planning.time.formats import Formats
from nemotrt.profiles.planning.time.operators import Resource, decode_call, prefill_call
from nemotrt.profiles.planning.time.operators import operators as operators_of
from nemotrt.profiles.planning.time.roofline import Scenario, roofline
from nemotrt.profiles.planning.time.step import ShardedModel, StepTime, step_time

Timings = dict[str, dict[str, float]]  # seconds of the fastest step, by probe model and load
LOADS = {
    "one": decode_call(1, 1),
    "batch": decode_call(BATCH_SIZE, 1),
    "prompt": prefill_call(1, 0, GEMM_ROWS),
}
NUM_PASSES = 8
# What noise may drive below zero is this share of the whole step at least.
LEAST_SHARE, LEAST_S = 0.1, 1e-9
# A state counts when it is read and when it is written, and is looked up once.
MOST_IN_PLACE = 2.0


@dataclass(frozen=True, slots=True)
class Solver:
    """The probe's timings, and what the planner says of them under some rates."""

    machine: Machine
    engine: str
    precision: Precision
    timings: Timings

    @property
    def formats(self) -> Formats:
        """The formats of the probe's models."""
        return load_engine(self.engine).formats(
            self.precision, NumberFormat.FP32, NumberFormat.FP32
        )

    def planned(self, rates: Rates, name: str, load: str) -> StepTime:
        """Return the planner's milliseconds of one of the probe's steps."""
        gpu = profile_of(self.machine, self.engine, self.precision, rates)
        on = roofline(gpu, load_engine(self.engine), Scenario.BEST)
        return step_time(ShardedModel(_model(name), self.formats), on, LOADS[load])

    def kernels_s(self, rates: Rates, name: str, load: str) -> float:
        """Return the seconds that the kernels of a step were seen to take."""
        return self.timings[name][load] - self.planned(rates, name, load).overhead / 1e3

    def overheads(self, rates: Rates) -> Rates:
        """Return the rates with what the small kernels leave for a launch and for its rows."""
        left_s = {}
        for load in ("one", "batch"):
            planned, all_s = self.planned(rates, "small", load), self.timings["small"][load]
            kernels_s = (planned.total - planned.overhead) / 1e3
            left_s[load] = max(all_s - kernels_s, LEAST_SHARE * all_s)
        num_launches = self._operators("small", "one")[2]
        row_s = max(left_s["batch"] - left_s["one"], 0.0) / (BATCH_SIZE - 1)
        launch_s = max(left_s["one"] - row_s, 0.0)
        return replace(rates, launch_s=launch_s / num_launches, row_s=row_s / num_launches)

    def linears(self, rates: Rates) -> Rates:
        """Return the rates with those that solve the linears' one row, 8 rows and 64 rows."""
        (few_bytes, few_flops, _), (more_bytes, more_flops, _), (bytes_, flops, _) = (
            self._operators("linears", load) for load in LOADS
        )
        few_s, more_s, all_s = (
            max(self.kernels_s(rates, "linears", load), LEAST_SHARE * self.timings["linears"][load])
            for load in LOADS
        )
        determinant = few_bytes * more_flops - more_bytes * few_flops
        byte_s = max(
            (few_s * more_flops - more_s * few_flops) / determinant,
            LEAST_SHARE * few_s / few_bytes,
        )
        product_s = max(
            (more_s * few_bytes - few_s * more_bytes) / determinant,
            LEAST_SHARE * more_s / more_flops,
        )
        products = flops / max(all_s - bytes_ * byte_s, LEAST_SHARE * all_s)
        return replace(
            rates, bandwidth=1 / byte_s, products=products, decode_products=1 / product_s
        )

    def cache(self, rates: Rates) -> Rates:
        """Return the rates with the cache's bandwidth, which is memory's at least."""
        num_bytes, num_flops, _ = self._operators("cached", "one")
        all_s = self.timings["cached"]["one"]
        left_s = self.kernels_s(rates, "cached", "one") - num_flops / rates.decode_products
        bandwidth = max(num_bytes / max(left_s, LEAST_SHARE * all_s), rates.bandwidth)
        return replace(rates, cache_bandwidth=bandwidth)

    def states(self, rates: Rates) -> Rates:
        """Return the rates with the scan's: its products, and states in memory.

        One sequence's states stay in the cache, where moving them is soon done.
        """
        peak = rates.peak_products
        _, num_flops = self._scan("one")
        at_peak = self.planned(replace(rates, state_products=peak), "states", "one")
        moved_s = at_peak.ssm / 1e3 - num_flops / peak
        # The profile holds it to the peak: where moving the states takes all, nothing is left.
        state_products = num_flops / max(self._scan_s(rates, "one") - moved_s, LEAST_S)
        num_bytes, num_flops = self._scan("batch")
        seen_s = self._scan_s(rates, "batch")
        left_s = max(seen_s - num_flops / min(state_products, peak), LEAST_SHARE * seen_s)
        state_bandwidth = min(num_bytes / left_s, MOST_IN_PLACE * rates.bandwidth)
        return replace(rates, state_products=state_products, state_bandwidth=state_bandwidth)

    def _scan_s(self, rates: Rates, load: str) -> float:
        """Return the seconds that the scan was seen to take beside the rest of its model."""
        planned, all_s = self.planned(rates, "states", load), self.timings["states"][load]
        return max(all_s - (planned.total - planned.ssm) / 1e3, LEAST_S)

    def _scan(self, load: str) -> tuple[float, float]:
        """Return the bytes and products of the scan."""
        found = operators_of(_model("states"), self.formats, LOADS[load])
        scan = next(o for o in found if o.resource is Resource.SSM)
        return scan.num_bytes, scan.num_flops

    def _operators(self, name: str, load: str) -> tuple[float, float, int]:
        """Return the bytes and products beside attention and states, and all launches."""
        found = list(operators_of(_model(name), self.formats, LOADS[load]))
        counted = [o for o in found if o.resource in (Resource.WEIGHTS, Resource.ELEMENTWISE)]
        launches = load_engine(self.engine).launches
        num_launches = sum(o.num_launches for o in found)
        num_launches = launches.of(_model(name)) if launches else num_launches
        return sum(o.num_bytes for o in counted), sum(o.num_flops for o in counted), num_launches


@cache
def _model(name: str) -> ModelConfig:
    return parse_model_config(PROBE_MODELS[name])


def cpu_profile(
    machine: Machine, engine: str, precision: Precision, timings: Timings
) -> GpuProfile:
    """Return the profile under which the planner predicts the probe's own timings."""
    solver = Solver(machine, engine, precision, timings)
    rates = Rates()
    for _ in range(NUM_PASSES):
        for solve in (solver.linears, solver.cache, solver.overheads, solver.states):
            rates = solve(rates)
    return profile_of(machine, engine, precision, rates)
