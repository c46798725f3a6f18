"""A compose file for an engine on one host."""

from pathlib import Path
from typing import Any

from nemotrt.serve.deploy.kubernetes import (
    ENGINE_MOUNT,
    GRACE_MARGIN_S,
    RUN_FOLDER,
    serve_command,
)
from nemotrt.serve.deploy.mounts import CHECKPOINT_MOUNT
from nemotrt.serve.deploy.specs import PORTS, ComposeSpec

HEALTH = (
    "import urllib.request; "
    f"urllib.request.urlopen('http://127.0.0.1:{PORTS['openai']}/health/ready', timeout=5)"
)


def compose_file(spec: ComposeSpec) -> dict[str, Any]:
    """Return the file: one service, as closed as the Kubernetes manifests make a pod."""
    volumes, checkpoint = {ENGINE_MOUNT: spec.engine}, None
    if spec.weights is not None:
        volumes[CHECKPOINT_MOUNT] = spec.weights.source
        checkpoint = spec.weights.path.replace("$", "$$")
    service: dict[str, Any] = {
        "image": spec.image,
        "command": serve_command(spec, checkpoint),
        "user": "1000:1000",
        "environment": {
            "NEMOTRT_API_KEYS": "${NEMOTRT_API_KEYS:-}",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "${OTEL_EXPORTER_OTLP_ENDPOINT:-}",
        },
        "ports": [f"127.0.0.1:{spec.port}:{PORTS['openai']}"],
        "volumes": [_volume(source, target) for target, source in volumes.items()],
        "read_only": True,
        "tmpfs": ["/tmp", f"{RUN_FOLDER}:uid=1000,mode=0700"],
        "shm_size": "1gb",  # Triton's stubs
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "stop_grace_period": f"{spec.drain_s + GRACE_MARGIN_S}s",
        "healthcheck": {
            "test": ["CMD", "python3", "-c", HEALTH],
            "interval": "10s",
            "timeout": "6s",
            "retries": 3,
            "start_period": "30m",
        },
    }
    if spec.memory_gib is not None:
        service["mem_limit"] = f"{spec.memory_gib}g"
    if spec.num_gpus:
        gpus = {"driver": "nvidia", "count": spec.num_gpus, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [gpus]}}}
    return {"services": {spec.name: service}}


def _volume(source: Path, target: str) -> dict[str, Any]:
    """Return one folder of the host, to be read alone."""
    told = str(source).replace("$", "$$")  # else compose puts a variable's value there
    return {"type": "bind", "source": told, "target": target, "read_only": True}
