"""From what the user names to a target: an engine directory, or a server's address."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from nemotrt.engines.artefact.manifest import MANIFEST_FILE
from nemotrt.engines.artefact.weights import OpenOptions
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.engines.tiny.models import resolve_checkpoint
from nemotrt.errors import ConfigError
from nemotrt.profiles.load.http.http_client import HttpClient
from nemotrt.profiles.load.prompts import PromptMaker
from nemotrt.profiles.load.target import Target
from nemotrt.profiles.load.targets.in_process import InProcessTarget
from nemotrt.profiles.load.targets.openai_http import Endpoint, OpenAiTarget
from nemotrt.profiles.load.targets.triton_grpc import TritonGrpcTarget
from nemotrt.profiles.load.targets.triton_http import TritonHttpTarget
from nemotrt.profiles.load.workload import Workload


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
        model: the model's name on a server.
        tokenizer: a folder with the model's tokenizer, or a built-in model's name.
        num_threads: CPU threads of an engine in this process; default all.
        checkpoint: where its weights are; default as it says itself.
        verify: read them all, whatever was verified before.
        stall_timeout_s: a server that sends nothing for so long has failed.
        headers: of every HTTP request.
        extra: further inputs or fields of every request; None takes one of ours away.
    """

    protocol: Protocol | None = None
    model: str = "llm"
    tokenizer: str | None = None
    num_threads: int | None = None
    checkpoint: str | None = None
    verify: bool = False
    stall_timeout_s: float = 300.0
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def open_target(address: str, workload: Workload, options: TargetOptions | None = None) -> Target:
    """Return the target that `address` names; nothing is sent yet.

    `address` is an engine directory, or a server's http(s):// or grpc:// address; the workload's
    language and seed make the prompts.

    Raises:
        ConfigError: the address is neither, or the tokenizer's folder has none.
        ArtefactError: the engine directory is damaged.
    """
    options = options or TargetOptions()
    _check_options(address, options)
    if address.startswith(("http://", "https://")):
        return _http_target(address, workload, options)
    if address.startswith("grpc://"):
        return TritonGrpcTarget(
            address.removeprefix("grpc://"),
            _maker(options.tokenizer, workload),
            model=options.model,
            extra=options.extra,
            headers=options.headers,
            stall_timeout_s=options.stall_timeout_s,
        )
    folder = Path(address)
    if not (folder / MANIFEST_FILE).is_file():
        raise ConfigError(
            f"target {address!r} is neither an engine directory nor a URL like "
            "http://127.0.0.1:8000. Build an engine with `nemotrt build`."
        )
    return InProcessTarget(
        folder,
        language=workload.language,
        seed=workload.seed,
        options=OpenOptions(options.num_threads, options.checkpoint, not options.verify),
    )


def _check_options(address: str, options: TargetOptions) -> None:
    """Raise ConfigError for an option that this kind of target has no use for."""
    is_server = "://" in address
    given = {
        "--threads": is_server and options.num_threads is not None,
        "--checkpoint": is_server and options.checkpoint is not None,
        "--verify": is_server and options.verify,
        "--protocol": not is_server and options.protocol is not None,
        "--header": not is_server and bool(options.headers),
        "--extra": not is_server and bool(options.extra),
    }
    for flag in (flag for flag, is_foreign in given.items() if is_foreign):
        what = "an engine directory, not a server" if is_server else "a server, not an engine"
        raise ConfigError(f"{flag} is for {what}: the target is {address}.")


def _http_target(address: str, workload: Workload, options: TargetOptions) -> Target:
    """Return the target for an http(s) address."""
    base = address.rstrip("/")
    protocol = options.protocol
    if base.endswith("/v1"):
        base = base.removesuffix("/v1")
        protocol = protocol or Protocol.OPENAI
    maker = _maker(options.tokenizer, workload)
    client = HttpClient(base, headers=options.headers, stall_timeout_s=options.stall_timeout_s)
    if protocol in (Protocol.OPENAI, Protocol.OPENAI_CHAT):
        endpoint = Endpoint.CHAT if protocol is Protocol.OPENAI_CHAT else Endpoint.COMPLETIONS
        return OpenAiTarget(
            client, maker, model=options.model, endpoint=endpoint, extra=options.extra
        )
    return TritonHttpTarget(client, maker, model=options.model, extra=options.extra)


def parse_extra(items: tuple[str, ...]) -> dict[str, Any]:
    """Return {"name": value} of items like name=1, name=true, name=text, name=null.

    Raises:
        ConfigError: an item has no "=".
    """
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not (name and equals):
            raise ConfigError(f"{item!r} must be NAME=VALUE, such as top_k=1.")
        try:
            found[name] = json.loads(text)
        except ValueError:
            found[name] = text
    return found


def _maker(tokenizer: str | None, workload: Workload) -> PromptMaker:
    """Return the maker of prompts for the tokenizer in a folder."""
    if tokenizer is None:
        raise ConfigError(
            "prompts of an exact length need the model's tokenizer: give --tokenizer, "
            "an engine directory or checkpoint folder."
        )
    folder = resolve_checkpoint(tokenizer)
    found = load_tokenizer(folder)
    if found is None:
        raise ConfigError(f"{folder} has no tokenizer.")
    return PromptMaker(found, workload.language, workload.seed)
