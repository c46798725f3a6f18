"""The options that `plan` and `plan sweep` share, and how they become values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from nemotrt.engines.model.numerics import NumberFormat, Precision
from nemotrt.errors import ConfigError, unknown_name
from nemotrt.files.text_file import read_yaml
from nemotrt.profiles.planning.answers.deployment import DeploymentOptions
from nemotrt.profiles.planning.memory.capacity import Admission
from nemotrt.profiles.planning.time.engine_profile import known_engines

F = TypeVar("F", bound=Callable[..., Any])
DEFAULTS = DeploymentOptions("")
KV_TYPES = (NumberFormat.BF16, NumberFormat.FP8, NumberFormat.INT8, NumberFormat.FP32)
SSM_TYPES = (NumberFormat.FP32, NumberFormat.BF16, NumberFormat.FP16)


def deployment_options(function: F) -> F:
    """Add what a deployment needs beside model, GPU, precision and lengths."""
    for decorate in reversed(
        (
            click.option(
                "--engine",
                type=click.Choice(known_engines()),
                default=DEFAULTS.engine,
                show_default=True,
                help="Whose paging, defaults and overheads to assume.",
            ),
            click.option(
                "--kv-dtype",
                type=click.Choice([t.value for t in KV_TYPES]),
                help="Number format of the KV cache "
                "[default: the checkpoint's, else the engine's].",
            ),
            click.option(
                "--ssm-dtype",
                type=click.Choice([t.value for t in SSM_TYPES]),
                help="Number format of the SSM state [default: the checkpoint's, else fp32].",
            ),
            click.option(
                "--tp",
                type=click.IntRange(min=1),
                default=DEFAULTS.tp,
                show_default=True,
                help="GPUs that share each layer.",
            ),
            click.option(
                "--memory-utilization",
                type=click.FloatRange(0, 1, min_open=True),
                default=DEFAULTS.memory_utilization,
                show_default=True,
                help="Share of the GPU's memory that the engine may fill.",
            ),
            click.option(
                "--reserve-gib",
                type=click.FloatRange(min=0),
                default=DEFAULTS.reserve_gib,
                show_default=True,
                help="GiB kept for something else, such as a vision encoder.",
            ),
            click.option(
                "--admission",
                type=click.Choice([a.value for a in Admission]),
                default=DEFAULTS.admission.value,
                show_default=True,
                help="Reserve each request's full length, or fill by mean occupancy.",
            ),
            click.option(
                "--max-num-tokens",
                type=click.IntRange(min=1),
                help="New tokens in one call [default: the engine's].",
            ),
        )
    ):
        function = decorate(function)
    return function


def config_option(function: F) -> F:
    """Add `--config FILE`: YAML with the options' names; flags override it."""
    decorated: F = click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        is_eager=True,
        expose_value=False,
        callback=_load_config,
        help="YAML file with these options; flags override it.",
    )(function)
    return decorated


def _load_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    """Make the file's values the command's defaults."""
    if path is None:
        return
    raw = read_yaml(path)
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping of option names.")
    # Keys are the flags without dashes in front, or the argument's name.
    known = {
        name.lstrip("-").replace("-", "_"): str(p.name)
        for p in ctx.command.params
        if p.name != "config"
        for name in p.opts
    }
    values = {}
    for key, value in raw.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise unknown_name(f"key in {path}", str(key), sorted(known))
        values[known[name]] = value
    ctx.default_map = {**(ctx.default_map or {}), **values}


def to_options(model: str, gpu: str, values: dict[str, Any]) -> DeploymentOptions:
    """Return the deployment options of parsed flags; extra keys are ignored."""
    precision = values.get("precision")
    kv, ssm = values["kv_dtype"], values["ssm_dtype"]
    return DeploymentOptions(
        model=model,
        gpu=gpu,
        precision=None if precision is None else Precision(precision),
        engine=values["engine"],
        isl=values.get("isl", DEFAULTS.isl),
        osl=values.get("osl", DEFAULTS.osl),
        kv_dtype=None if kv is None else NumberFormat(kv),
        ssm_dtype=None if ssm is None else NumberFormat(ssm),
        tp=values["tp"],
        memory_utilization=values["memory_utilization"],
        reserve_gib=values["reserve_gib"],
        admission=Admission(values["admission"]),
        max_num_tokens=values["max_num_tokens"],
    )
