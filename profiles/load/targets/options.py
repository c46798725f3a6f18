"""How to reach a target, as options of `nemotrt profile`; nothing heavy is imported."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import click

from nemotrt.commandline import COUNT, FloatRange, option
from nemotrt.errors import ConfigError


class Protocol(StrEnum):
    """What a server speaks."""

    TRITON = "triton"  # generate_stream, or ModelStreamInfer for a grpc:// address
    OPENAI = "openai"  # /v1/completions
    OPENAI_CHAT = "openai-chat"  # /v1/chat/completions


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """How to reach a target.

    Attributes:
        protocol: what a server speaks; by default /v1 at the end of the address means OpenAI.
        tokenizer: a folder with the model's tokenizer, or a built-in model's name.
        stall_timeout_s: a server that sends nothing for so long has failed.
        headers: of every HTTP request.
        extra: further inputs or fields of every request; None takes one of ours away.
    """

    protocol: Protocol | None = option(None, "What a server speaks.")
    model: str = option("llm", "The model's name on a server.")
    tokenizer: str | None = option(None, "Folder with the model's tokenizer; a server needs it.")
    num_threads: int | None = option(
        None, "CPU threads of an engine directory.", "--threads", kind=COUNT
    )
    stall_timeout_s: float = option(
        300.0, "A server that is silent for so long has failed.", kind=FloatRange(0.1)
    )
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_headers(_: click.Context, __: click.Parameter, items: tuple[str, ...]) -> dict[str, str]:
    """Return {"name": "text"} of items like name=text; a click callback.

    Raises:
        ConfigError: an item has no "=".
    """
    found = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not (name and equals):
            raise ConfigError(f"{item!r} must be NAME=VALUE, such as top_k=1.")
        found[name] = text
    return found


def read_extra(
    ctx: click.Context, param: click.Parameter, items: tuple[str, ...]
) -> dict[str, Any]:
    """Return {"name": value} of items like name=1, name=true, name=text, name=null.

    Raises:
        ConfigError: an item has no "=".
    """
    found: dict[str, Any] = dict(read_headers(ctx, param, items))
    for name, text in found.items():
        try:
            found[name] = json.loads(text)
        except ValueError:
            continue  # a text
    return found
