"""The limits that `nemotrt build` should compile an engine for, as a YAML file."""

import os
from pathlib import Path

import yaml

from nemotrt.errors import ConfigError
from nemotrt.profiles.planning.plan import SCHEMA_VERSION, Plan


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


def write_text(path: Path, text: str, is_overwrite: bool) -> None:
    """Write a whole file or nothing; an existing one only with `is_overwrite`.

    Raises:
        ConfigError: the file exists, or its folder does not.
    """
    check_writable(path, is_overwrite)
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path, is_overwrite: bool) -> None:
    """Raise ConfigError where `path` exists without `is_overwrite`, or has no folder."""
    if path.exists() and not is_overwrite:
        raise ConfigError(f"{path} exists; choose another name or add --force.")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is not a folder.")


def limits_yaml(plan: Plan) -> str:
    """Return the limits file's text."""
    return yaml.safe_dump(limits_of(plan), sort_keys=False)
