"""What the processes of a server are told: the options of `nemotrt serve`, and of each process."""

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import click

from nemotrt.commandline.kinds import ABOVE_0, COUNT, PORT, FloatRange
from nemotrt.commandline.options import option
from nemotrt.engines.artefact.options import OpenOptions
from nemotrt.engines.runtime.state.kept.options import PrefixCacheOptions
from nemotrt.errors import ConfigError

SIZE = click.IntRange(0)
DEFAULT_NAME = "llm"
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}", re.ASCII)
DEFAULT_STORED_MIB = 64
# A chunk's cost to Triton, its stub and the front hardly depends on the tokens it carries, so this
# bounds their share of the machine. Chosen, not derived: benchmarks/serve_throughput.py compares.
MAX_CHUNKS_PER_S = 2000.0
# Where the engine computes on the same cores, chunks take its time. One costs 0.35 to 0.45 ms of
# CPU: 4 % of the cores at this rate. Source: measured, busy 2-core machine, 2026-11-30.
CHUNKS_PER_S_AND_CORE = 100.0
# Few streams are people who read: each of their tokens goes out alone, on any number of cores.
SMOOTH_STREAMS = 4


@dataclass(frozen=True, slots=True)
class FrontOptions:
    """Where the OpenAI endpoint listens, and how it answers."""

    model_name: str = option(DEFAULT_NAME, "The model's name.", "--name")
    served_model_name: tuple[str, ...] = option(
        (),
        "Another name for it in requests; may be given more than once.",
        unset="OWNER/NAME of what it was built from, where that is known",
    )
    host: str = option(
        "127.0.0.1", "Address that the OpenAI endpoint listens on."
    )  # Triton never leaves loopback
    port: int = option(9000, "Port of the OpenAI endpoint.", kind=PORT)
    reasoning_in_content: bool = option(False, "Leave <think> traces in the content.")
    api_key_file: Path | None = option(None, "API keys, one per line; or $NEMOTRT_API_KEYS.")
    share_prefixes: bool = option(False, "API keys use each other's kept prefixes.")
    tls_certificate: Path | None = option(None, "PEM file, with --tls-key.")
    tls_key: Path | None = option(None, "PEM file, with --tls-certificate.")
    cors_origin: tuple[str, ...] = option(
        (), "Origin of web pages that may use the API; may be repeated."
    )
    allowed_host: tuple[str, ...] = option((), "Name of this server, beside localhost's.")
    vllm_metrics: bool = option(False, "/metrics has vLLM's names too.")
    stored_responses_mib: int = option(
        DEFAULT_STORED_MIB,
        "MiB for stored responses, from which /v1/responses goes on; 0 stores none.",
        kind=SIZE,
    )
    max_body_bytes: int | None = option(
        None,
        "Most bytes of a request's body.",
        kind=COUNT,
        unset="by the engine's max_seq_len, 16 MiB at most",
    )

    def __post_init__(self) -> None:
        """Check the names."""
        if not all(name.strip() for name in self.served_model_name):
            raise ConfigError("served_model_name must have a character; leave it out for none.")


@dataclass(frozen=True, slots=True)
class TritonOptions:
    """Where Triton listens on loopback, and the folder of its runtime."""

    http_port: int = option(8000, "Port of Triton's HTTP.", kind=PORT)
    grpc_port: int = option(8001, "Port of Triton's gRPC.", kind=PORT)
    metrics_port: int = option(8002, "Port of Triton's metrics.", kind=PORT)
    runtime: Path | None = option(None, "Triton runtime folder.")

    @property
    def ports(self) -> list[int]:
        """The ports in their order."""
        return [self.http_port, self.grpc_port, self.metrics_port]


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many requests may wait for a slot, and how long."""

    max_queue_size: int = option(512, "Waiting requests.", kind=COUNT)
    max_queue_s: float = option(300.0, "Longest wait for a slot, in seconds.", kind=ABOVE_0)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.max_queue_size < 1:
            raise ConfigError(f"max_queue_size must be at least 1, got {self.max_queue_size}.")
        if self.max_queue_s <= 0:
            raise ConfigError(f"max_queue_s must be above 0, got {self.max_queue_s}.")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine's process takes requests, sends and stops."""

    queue: QueueLimits = QueueLimits()
    max_chunks_per_s: float | None = option(
        None,
        "Most chunks that the endpoint sends per second, over all streams together.",
        kind=ABOVE_0,
        unset=f"{MAX_CHUNKS_PER_S:g}; {CHUNKS_PER_S_AND_CORE:g} per core for engines on the CPU "
        f"while more than {SMOOTH_STREAMS} streams run",
    )
    target_itl_ms: float | None = option(
        None,
        "Milliseconds between tokens to keep while prompts come in: prompt chunks shrink for it.",
        kind=ABOVE_0,
    )
    drain_s: float = option(
        30.0, "Seconds that running answers have to finish at a stop.", kind=FloatRange(0)
    )
    prefix_cache: PrefixCacheOptions = field(default_factory=PrefixCacheOptions)
    opening: OpenOptions = field(default_factory=OpenOptions)


def check_adapter_names(adapters: Collection[str], models: Collection[str]) -> None:
    """Raise ConfigError where an adapter has the model's name."""
    if same := sorted({*adapters} & {*models}):
        raise ConfigError(
            f"the adapter {same[0]} is called like the model; give one of them another name: "
            "--lora NAME=DIR, or --name."
        )


@dataclass(frozen=True, slots=True)
class ChunkRate:
    """How many chunks all streams may have per second, and while few of them run."""

    many_per_s: float = MAX_CHUNKS_PER_S
    few_per_s: float = MAX_CHUNKS_PER_S

    @classmethod
    def of(cls, wanted: float | None, *, is_cpu: bool, num_cores: int) -> "ChunkRate":
        """Return the rate for an engine; `wanted` holds for any number of streams."""
        if wanted is not None:
            return cls(wanted, wanted)
        return cls(min(MAX_CHUNKS_PER_S, CHUNKS_PER_S_AND_CORE * num_cores)) if is_cpu else cls()

    def interval_s(self, num_streams: int) -> float:
        """Return how far apart the chunks of each of the running streams go out."""
        is_few = num_streams <= SMOOTH_STREAMS
        return num_streams / (self.few_per_s if is_few else self.many_per_s)


def check_model_name(name: str) -> None:
    """Raise ConfigError unless Triton can load a model of that name.

    It is a folder, part of an address, and part of the line of bash that starts the model.
    """
    if not MODEL_NAME.fullmatch(name):
        raise ConfigError(
            f"model name {name!r} must begin with a letter or digit; it may have ASCII letters, "
            "digits, '-', '_' and '.'."
        )
