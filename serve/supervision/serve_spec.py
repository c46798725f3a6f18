"""Everything that `nemotrt serve ENGINE` can be told."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemotrt.commandline.options import option
from nemotrt.errors import ConfigError
from nemotrt.serve.logs.options import LogFiles, LogOptions
from nemotrt.serve.processes.options import EngineOptions, FrontOptions, TritonOptions

ENGINE_MODULE = "nemotrt.serve.engine.host"  # what runs the engine's process


@dataclass(frozen=True, slots=True)
class ServeSpec:
    """What to serve and how; a port 0 means a free one."""

    engine: Path
    front: FrontOptions = field(default_factory=FrontOptions)
    triton: TritonOptions = field(default_factory=TritonOptions)
    use_triton: bool = option(True, "Start only the engine and the OpenAI endpoint.", "--no-triton")
    process: EngineOptions = field(default_factory=EngineOptions)
    logs: LogOptions = field(default_factory=LogOptions)
    log_files: LogFiles = field(default_factory=LogFiles)
    engine_module: str = ENGINE_MODULE

    def check_ports(self) -> None:
        """Raise ConfigError for a port that is given twice."""
        ports = [self.front.port, *(self.triton.ports if self.use_triton else [])]
        fixed = [port for port in ports if port]
        if len(set(fixed)) != len(fixed):
            raise ConfigError(f"ports must differ, got {ports}.")

    def to_json(self) -> str:
        """Return the resolved configuration, to be kept beside the logs."""
        flat: dict[str, Any] = {}
        for name, value in dataclasses.asdict(self).items():
            flat |= value if isinstance(value, dict) else {name: value}
        return json.dumps(flat, indent=1, default=str) + "\n"
