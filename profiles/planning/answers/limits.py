"""The limits that `nemotrt build` should compile an engine for, as a YAML file."""

import yaml

from nemotrt.errors import ConfigError
from nemotrt.profiles.planning.answers.as_built import unbuilt
from nemotrt.profiles.planning.answers.deployment import Deployment
from nemotrt.profiles.planning.answers.plan import SCHEMA_VERSION, Plan


def check_limits(deployment: Deployment) -> None:
    """Raise ConfigError unless `nemotrt build` makes the engine of the plan."""
    if reason := unbuilt(deployment):
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
