"""The limits that `nemotrt build` should compile an engine for, as a YAML file."""

import yaml

from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.planning import ForeignRuntime
from nemotrt.errors import ConfigError
from nemotrt.profiles.planning.answers.as_built import as_built, planning_of, unbuilt
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.plan import SCHEMA_VERSION, Plan


def check_limits(deployment: Deployment, batch_size: int) -> None:
    """Raise ConfigError unless `nemotrt build` makes the engine of the plan, with its sequences."""
    reason = unbuilt(deployment)
    how = None if reason else planning_of(registry.find(deployment.engine.name), deployment.tp)
    if isinstance(how, ForeignRuntime):  # which may leave memory alone that the plan fills
        _, fitting = as_built(deployment, how)
        if fitting < batch_size:
            reason = (
                f"as backend {deployment.engine.name} shares memory out, {fitting} sequences fit "
                f"and not {batch_size}; use --batch-size {fitting}"
            )
    if reason:
        raise ConfigError(f"--write-limits writes what `nemotrt build` takes: {reason}.")


def limits_of(plan: Plan) -> dict[str, object]:
    """Return the limits of a plan and the plan's own inputs, ready for YAML."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": plan.model,
        "gpu": plan.gpu,
        "engine": plan.engine,
        "backend": plan.engine,
        "precision": plan.precision.value,
        "kv_dtype": plan.kv_dtype.value,
        "ssm_dtype": plan.ssm_dtype.value,
        "tp": plan.tp,
        "max_batch_size": plan.batch_size,
        "max_num_tokens": plan.max_num_tokens,
        "max_seq_len": plan.max_seq_len,
        "memory_utilization": plan.memory_utilization,
    }


def limits_yaml(plan: Plan) -> str:
    """Return the limits file's text."""
    return yaml.safe_dump(limits_of(plan), sort_keys=False)
