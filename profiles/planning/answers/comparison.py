"""How a model compares with a baseline on the same GPU, and why."""

from dataclasses import replace

from nemotrt.errors import NoFeasiblePlanError
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.plan import Plan, Range, make_plan
from nemotrt.profiles.planning.memory.capacity import GIB
from nemotrt.profiles.planning.time.corrections import corrections_of
from nemotrt.profiles.planning.time.roofline import Scenario

OVERHEADS = ("step_overhead_ms", "sequence_overhead_us", "request_overhead_ms")
# A part of the step is named as a reason when it differs by this share of the baseline's step.
NOTABLE = 0.05


def compare(
    deployment: Deployment, plan: Plan, baseline: Deployment, usd_per_hour: float | None = None
) -> Plan:
    """Return `plan` with its baseline, the ratio of throughputs, and the reason in words.

    The baseline serves as many users as fit, unless the plan's load is below its own capacity:
    then it gets the same users. A baseline that does not fit leaves the ratio empty.
    """
    is_full = plan.concurrency == plan.max_batch_size
    try:
        other = make_plan(baseline, None if is_full else plan.concurrency, None, usd_per_hour)
    except NoFeasiblePlanError as error:
        return replace(plan, reason=f"{baseline.model_name} does not run: {error.message}")
    loads = [(one.concurrency, one.batch_size) for one in (plan, other)]
    ratio = throughput_ratio(deployment, loads[0], baseline, loads[1])
    return replace(plan, baseline=other, ratio=ratio, reason=_reason(plan, other))


def throughput_ratio(
    deployment: Deployment, load: tuple[int, int], baseline: Deployment, other: tuple[int, int]
) -> Range:
    """Return the ratio and its spread: one correction at a time to either end of its band.

    A load is the users, and how many of them run.

    Both models run on the same GPU, so a correction moves both; that is why the band of the ratio
    is narrower than that of the throughputs.
    """
    best = deployment.tokens_per_s(*load, Scenario.BEST)
    best /= baseline.tokens_per_s(*other, Scenario.BEST)
    seen = [best]
    for name in (*corrections_of(deployment.gpu).present(), *OVERHEADS):
        for scenario in (Scenario.LOW, Scenario.HIGH):
            ours = deployment.tokens_per_s(*load, scenario, name)
            theirs = baseline.tokens_per_s(*other, scenario, name)
            seen.append(ours / theirs)
    return Range(min(seen), best, max(seen))


def _reason(plan: Plan, other: Plan) -> str:
    """Return why one is faster: the sequences that fit, then the parts of the step."""
    ours, theirs = plan.model, other.model
    if plan.batch_size != other.batch_size:
        why = (
            f"{ours} holds {plan.batch_size} sequences, {theirs} {other.batch_size}: memory "
            f"(one sequence takes {plan.request_bytes / GIB:.2f} against "
            f"{other.request_bytes / GIB:.2f} GiB, the weights {plan.weights_bytes / GIB:.2f} "
            f"against {other.weights_bytes / GIB:.2f} GiB)"
        )
    else:
        why = f"both run {plan.batch_size} sequences, so the time of a step decides"
    step, base = plan.decode_step_ms, other.decode_step_ms
    parts = [
        f"{name} {getattr(step, name):.1f} against {getattr(base, name):.1f}"
        for name in ("weights", "attention", "ssm", "elementwise", "overhead")
        if abs(getattr(step, name) - getattr(base, name)) > NOTABLE * base.total
    ]
    detail = f" ({', '.join(parts)})" if parts else ""
    return f"{why}; a step takes {step.total:.1f} against {base.total:.1f} ms{detail}"
