"""From what the user names to a target: an engine directory, or a server's address."""

from pathlib import Path

from nemotrt import needs
from nemotrt.engines.artefact.manifest import MANIFEST_FILE
from nemotrt.engines.artefact.options import WeightPages
from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
from nemotrt.engines.checkpoint.hub.origin import origin_of
from nemotrt.engines.checkpoint.hub.parts import Part
from nemotrt.engines.runtime.speculation.options import AUTO
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.profiles.load.http.http_client import HttpClient
from nemotrt.profiles.load.prompts import PromptMaker
from nemotrt.profiles.load.target import Target
from nemotrt.profiles.load.targets.in_process import InProcessTarget
from nemotrt.profiles.load.targets.openai_http import OpenAiTarget
from nemotrt.profiles.load.targets.options import ServerProtocol, TargetOptions
from nemotrt.profiles.load.targets.triton_http import TritonHttpTarget
from nemotrt.profiles.load.workload import Workload


def open_target(address: str, workload: Workload, options: TargetOptions | None = None) -> Target:
    """Return the target that `address` names; nothing is sent yet.

    `address` is an engine directory, or a server's http(s):// or grpc:// address; the workload's
    language and seed make the prompts.

    Raises:
        ConfigError: the address is neither, or the tokenizer's folder has none.
        ArtefactError: the engine directory is damaged.
        EnvironmentUnfitError: tritonclient is not installed.
    """
    options = options or TargetOptions()
    if workload.max_retries and not address.startswith(("http://", "https://")):
        raise ConfigError(f"--retries is for HTTP's Retry-After: the target is {address}.")
    _check_options(address, options)
    if address.startswith(("http://", "https://")):
        return _http_target(address, workload, options)
    if address.startswith("grpc://"):
        try:
            from nemotrt.profiles.load.targets.triton_grpc import TritonGrpcTarget
        except ImportError as error:
            raise EnvironmentUnfitError(
                f"gRPC needs NVIDIA's client ({error}): {needs.TRITONCLIENT.cure}."
            ) from None
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
        options=options.opening,
        kept_bytes=int((options.prefix_cache_gib or 0.0) * 2**30),
    )


def _check_options(address: str, options: TargetOptions) -> None:
    """Raise ConfigError for an option that this kind of target has no use for."""
    is_server = "://" in address
    given = {
        "--threads": is_server and options.opening.num_threads is not None,
        "--prefix-cache-gib": is_server and options.prefix_cache_gib is not None,
        "--checkpoint": is_server and options.opening.checkpoint is not None,
        "--speculate": is_server and options.opening.speculate != AUTO,
        "--weight-pages": is_server and options.opening.weight_pages is not WeightPages.LAZY,
        "--pin-threads": is_server and options.opening.pins_threads,
        "--verify": is_server and not options.opening.trust_seals,
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
        is_chat = workload.sessions is not None
        protocol = protocol or (ServerProtocol.OPENAI_CHAT if is_chat else ServerProtocol.OPENAI)
    maker = _maker(options.tokenizer, workload)
    client = HttpClient(base, headers=options.headers, stall_timeout_s=options.stall_timeout_s)
    if protocol in (ServerProtocol.OPENAI, ServerProtocol.OPENAI_CHAT):
        is_chat = protocol is ServerProtocol.OPENAI_CHAT
        return OpenAiTarget(
            client, maker, model=options.model, is_chat=is_chat, extra=options.extra
        )
    return TritonHttpTarget(client, maker, model=options.model, extra=options.extra)


def _maker(tokenizer: str | None, workload: Workload) -> PromptMaker:
    """Return the maker of prompts for the tokenizer in a folder."""
    if tokenizer is None:
        raise ConfigError(
            "prompts of an exact length need the model's tokenizer: give --tokenizer, "
            "an engine directory, a checkpoint folder or a hub id."
        )
    folder = checkpoint_folder(tokenizer, Part.TOKENIZER, quiet=True)  # within the run's own bar
    found = load_tokenizer(folder)
    if found is None:
        raise ConfigError(f"{folder} has no tokenizer.")
    origin = origin_of(folder)
    facts = {"tokenizer": str(origin)} if origin else {}
    return PromptMaker(found, workload.language, workload.seed, facts)
