"""`nemotrt.plan(...)`: what `nemotrt plan` predicts of one model on one GPU, as a function."""

from nemotrt.engines.model.numerics import BUILT, Precision
from nemotrt.errors import unknown_name
from nemotrt.profiles.planning.answers.options import DeploymentOptions, deploy
from nemotrt.profiles.planning.answers.plan import Plan, make_plan


def plan(
    model: str,
    gpu: str | None = None,
    *,
    isl: int | None = None,
    osl: int | None = None,
    precision: str | None = None,
    engine: str | None = None,
    tp: int | None = None,
    concurrency: int | None = None,
    batch_size: int | None = None,
) -> Plan:
    """Return the predicted memory and throughput of a model on a GPU; nothing in it was measured.

    An argument that is None has the default of `nemotrt plan`.

    Args:
        model: a known name, a config.json, a checkpoint's folder or its hub id.
        gpu: a known GPU, a profile's file, or "this-machine"; None: "a10g".
        isl: tokens of a prompt; None: 8192.
        osl: tokens of an answer; None: 16384.
        precision: format of the linear layers: "bf16", "int8-wo", "fp8", ...; None: the model's.
        engine: the engine whose paging and overheads are assumed; None: the one that
            `nemotrt build` makes for the GPU.
        tp: GPUs that share each layer; None: 1.
        concurrency: users who each have one request open; None: as many as fit.
        batch_size: sequences that run at once; None: as many as fit.

    Raises:
        ConfigError: a name is unknown, or the GPU can't run the precision.
        NoFeasiblePlanError: not one sequence fits, or not `batch_size`.
    """
    given = {"gpu": gpu, "isl": isl, "osl": osl, "engine": engine, "tp": tp}
    options = DeploymentOptions(model).at(**{k: v for k, v in given.items() if v is not None})
    if precision is not None:
        known = [item.value for item in BUILT]
        if precision not in known:
            raise unknown_name("precision", precision, known)
        options = options.at(precision=Precision(precision))
    return make_plan(deploy(options), concurrency, batch_size)
