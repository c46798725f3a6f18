"""The limits that `nemotrt build` should compile an engine for, as a YAML file."""

import yaml

from nemotrt.profiles.planning.answers.plan import SCHEMA_VERSION, Plan


def limits_of(plan: Plan) -> dict[str, object]:
    """Return the limits of a plan and the plan's own inputs, ready for YAML."""
    return {
        "schema_version": SCHEMA_VERSION,
        "model": plan.model,
        "gpu": plan.gpu,
        "engine": plan.engine,
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
