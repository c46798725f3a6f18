"""The charts of a plan: memory, throughput, ratio over context, and the roofline."""

from collections.abc import Iterator, Sequence

from nemotrt.charts.spec import Bars, Chart, Lines, Series
from nemotrt.errors import NoFeasiblePlanError
from nemotrt.profiles.planning.answers.deployment import Deployment, with_context
from nemotrt.profiles.planning.answers.plan import Plan
from nemotrt.profiles.planning.answers.search import curve
from nemotrt.profiles.planning.memory.capacity import GIB, Memory
from nemotrt.profiles.planning.sources.number_format import peak_tflops
from nemotrt.profiles.planning.time.operators import Resource
from nemotrt.profiles.planning.time.roofline import Scenario

# Total tokens at which the ratio is drawn, beside the plan's own.
CONTEXTS = tuple(2**power for power in range(10, 18))


def plan_charts(deployment: Deployment, plan: Plan, baseline: Deployment | None) -> Iterator[Chart]:
    """Yield the charts of a plan, with the baseline's where there is one."""
    both = [deployment] if baseline is None else [deployment, baseline]
    plans = [plan] if plan.baseline is None else [plan, plan.baseline]
    yield memory_chart(plans)
    runnable = both[: len(plans)]
    yield throughput_chart(runnable)
    if baseline is not None:
        ratio = ratio_chart(deployment, baseline)
        if ratio is not None:
            yield ratio
    yield roofline_chart(deployment, plan)


def memory_chart(plans: Sequence[Plan]) -> Bars:
    """Return where the memory of one GPU goes, a bar a plan."""
    memories: list[Memory] = [plan.memory for plan in plans]
    columns = {
        "weights": [m.weights_bytes for m in memories],
        "KV cache": [m.kv_cache_bytes for m in memories],
        "states": [m.state_bytes for m in memories],
        "activations": [m.workspace_bytes for m in memories],
        "free": [max(m.free_bytes, 0) for m in memories],
        "withheld": [m.withheld_bytes for m in memories],
    }
    return Bars(
        "Memory of one GPU",
        "GiB",
        tuple(f"{plan.model} x {plan.batch_size}" for plan in plans),
        tuple((name, tuple(n / GIB for n in values)) for name, values in columns.items()),
        quiet=("free", "withheld"),
    )


def throughput_chart(deployments: Sequence[Deployment]) -> Lines:
    """Return tokens per second against users, with the band from low to high."""
    series = []
    for deployment in deployments:
        points = curve(deployment)
        values = tuple((float(p.concurrency), p.tokens_per_s.best) for p in points)
        band = tuple((p.tokens_per_s.low, p.tokens_per_s.high) for p in points)
        series.append(Series(deployment.model_name, values, band=band))
    title = f"Throughput, {deployments[0].isl} in / {deployments[0].osl} out"
    return Lines(title, "users", "tokens/s", tuple(series), is_x_log=True)


def ratio_chart(deployment: Deployment, baseline: Deployment) -> Lines | None:
    """Return throughput over the baseline's against length, both at their largest batch."""
    points = []
    share, own = deployment.isl / (deployment.isl + deployment.osl), deployment.isl + deployment.osl
    for total in sorted({*CONTEXTS, own}):
        isl = min(max(round(share * total), 1), total - 1)
        rates = []
        for one in (deployment, baseline):
            at = with_context(one, isl, total - isl)
            try:
                batch = at.max_batch_size()
            except NoFeasiblePlanError:
                break
            rates.append(at.tokens_per_s(batch, batch, Scenario.BEST))
        if len(rates) == 2:
            points.append((float(total), rates[0] / rates[1]))
    if not points:
        return None
    name = f"{deployment.model_name} / {baseline.model_name}"
    series = (Series(name, tuple(points)),)
    longest = min(one.fit.max_seq_len() for one in (deployment, baseline))
    x_label = f"tokens per sequence, {share:.0%} of them prompt (both fit up to {longest:,})"
    title = "Ratio of throughputs, each at its largest batch"
    return Lines(title, x_label, "ratio", series, is_x_log=True)


def roofline_chart(deployment: Deployment, plan: Plan) -> Lines:
    """Return each operator's intensity and rate under the datasheet's roof."""
    datasheet = deployment.gpu.datasheet
    arithmetic = deployment.formats.arithmetic
    peak = peak_tflops(deployment.gpu, arithmetic) * 1e12
    bandwidth = datasheet.bandwidth_gb_per_s * 1e9
    ridge = peak / bandwidth
    seen = [op for op in plan.operators if op.num_flops]
    intensities = [op.num_flops / op.num_bytes for op in seen]
    corners = (min([0.1, *intensities]), ridge, max([ridge * 10, *intensities]))
    roof = tuple((x, min(peak, x * bandwidth)) for x in corners)
    rates = [op.num_flops / (op.ms / 1e3) for op in seen]
    linears = [i for i, op in enumerate(seen) if op.resource == Resource.WEIGHTS]
    names = "\n".join(["linears", *(seen[i].name for i in linears)])
    labels = tuple(names if i == linears[0] else op.name for i, op in enumerate(seen))
    labels = tuple("" if i in linears[1:] else label for i, label in enumerate(labels))
    points = tuple(zip(intensities, rates, strict=True))
    operators = Series("operators", points, False, labels)
    return Lines(
        f"Roofline of a decode step, batch {plan.batch_size}",
        "flops per byte",
        "flop/s",
        (Series(f"{deployment.gpu.name} {arithmetic}", roof), operators),
        is_x_log=True,
        is_y_log=True,
    )
