"""How to reach a target, as options of `nemotrt profile`; nothing heavy is imported."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import click

from nemotrt.commandline.kinds import FloatRange
from nemotrt.commandline.options import option
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.checkpoint.hub.parameter import CHECKPOINT
from nemotrt.errors import ConfigError, unknown_name


class ServerProtocol(StrEnum):
    """What a server speaks."""

    TRITON = "triton"  # generate_stream, or ModelStreamInfer for a grpc:// address
    OPENAI = "openai"  # /v1/completions
    OPENAI_CHAT = "openai-chat"  # /v1/chat/completions


# What a server may be said to have, where it does not say so itself.
STATED = ("hardware", "kv_cache", "ssm_state", "prefix_cache", "power_limit_w", "clock_mhz")


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """How to reach a target.

    Attributes:
        prefix_cache_gib: GiB; None: 0, as later requests of a load must not find earlier ones'.
        headers: HTTP headers of every request: name -> text.
        extra: fields of every request's body: name -> value; None leaves out a field of ours.
    """

    protocol: ServerProtocol | None = option(
        None, "What a server speaks; .../v1 is openai, for conversations openai-chat."
    )
    model: str = option("llm", "The model's name on a server.")
    tokenizer: str | None = option(
        None, "Folder or hub id with the model's tokenizer; a server needs it.", kind=CHECKPOINT
    )
    prefix_cache_gib: float | None = option(
        None,
        "GiB that an engine may take for kept states of prompts.",
        kind=FloatRange(0),
        unset="0",
    )
    opening: OpenOptions = field(default_factory=OpenOptions)
    stall_timeout_s: float = option(
        300.0, "Seconds of a server's silence after which a request fails.", kind=FloatRange(0.1)
    )
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_headers(_: click.Context, __: click.Parameter, items: tuple[str, ...]) -> dict[str, str]:
    """Return {"name": "text"} of items like name=text; a callback of click's."""
    pairs = [item.partition("=") for item in items]
    for name, equals, _text in pairs:
        if not (name and equals):
            raise ConfigError(f"{name!r} must be NAME=VALUE, such as top_k=1.")
    return {name: text for name, _equals, text in pairs}


def read_facts(
    ctx: click.Context, param: click.Parameter, items: tuple[str, ...]
) -> dict[str, str]:
    """Return {"hardware": "1 x H100"} of items like that with =; refuses other names."""
    found = read_headers(ctx, param, items)
    for name in found.keys() - set(STATED):
        raise unknown_name("--fact", name, STATED)
    return found


def read_extra(ctx: click.Context, param: click.Parameter, items: tuple[str, ...]) -> Any:
    """Return {"name": value} of items like name=1, name=true, name=text, name=null."""
    return {name: _value(text) for name, text in read_headers(ctx, param, items).items()}


def _value(text: str) -> Any:
    """Return JSON's value, of what is no JSON the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
