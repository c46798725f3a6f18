"""Everything that `nemotrt serve ENGINE` can be told, checked once."""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from nemotrt.errors import ConfigError
from nemotrt.serve.engine.admission import QueueLimits
from nemotrt.serve.engine.loop import MAX_CHUNKS_PER_S
from nemotrt.serve.front.http.tls import check_tls
from nemotrt.serve.triton.repository import DEFAULT_NAME, check_model_name


@dataclass(frozen=True, slots=True)
class ServeSpec:
    """What to serve and how; a port 0 means a free one."""

    engine: Path
    model_name: str = DEFAULT_NAME
    host: str = "127.0.0.1"  # of the OpenAI front alone; Triton never leaves loopback
    port: int = 9000
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002
    queue: QueueLimits = field(default_factory=QueueLimits)
    max_chunks_per_s: float = MAX_CHUNKS_PER_S
    target_itl_ms: float | None = None
    drain_s: float = 30.0
    threads: int | None = None
    checkpoint: str | None = None  # where the engine's weights are; None: as it says itself
    verify: bool = False  # whatever was verified before
    runtime: Path | None = None  # None: the default runtime folder
    use_triton: bool = True
    engine_module: str = "nemotrt.serve.engine.host"  # what runs the engine's process
    reasoning_in_content: bool = False
    api_key_file: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    max_body_bytes: int | None = None  # None: what the engine can take

    def __post_init__(self) -> None:
        """Check the ranges."""
        ports = [self.port, self.http_port, self.grpc_port, self.metrics_port]
        if any(not 0 <= port <= 65535 for port in ports):
            raise ConfigError(f"ports must be 0 to 65535, got {ports}.")
        fixed = [port for port in ports if port]
        if len(set(fixed)) != len(fixed):
            raise ConfigError(f"ports must differ, got {ports}.")
        if self.use_triton:
            check_model_name(self.model_name)
        check_tls(self.tls_certificate, self.tls_key)
        if self.target_itl_ms is not None and not 0 < self.target_itl_ms < math.inf:
            raise ConfigError(f"target_itl_ms must be above 0, got {self.target_itl_ms}.")
        if self.max_chunks_per_s <= 0:
            raise ConfigError(f"max_chunks_per_s must be above 0, got {self.max_chunks_per_s}.")
        if self.drain_s < 0:
            raise ConfigError(f"drain_s must be 0 or more, got {self.drain_s}.")

    def to_json(self) -> str:
        """Return the resolved configuration, to be kept beside the logs."""
        return json.dumps(dataclasses.asdict(self), indent=1, default=str) + "\n"
