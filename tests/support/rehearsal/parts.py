"""The parts of what our files give a container: each mount, variable and device, from the files.

A pod of Kubernetes is told as a service of a compose file is, so that one stand-in starts both.
"""

import copy
import re
from pathlib import Path
from typing import Any, NamedTuple

from nemotrt.serve.deploy.compose import compose_file
from nemotrt.serve.deploy.kubernetes import deployment
from nemotrt.serve.deploy.mounts import CHECKPOINT_MOUNT, WeightsMount
from nemotrt.serve.deploy.specs import ClusterSpec, ComposeSpec

Service = dict[str, Any]
# A variable that has a value only where the user has set it.
PASSED_ON = re.compile(r"\$\{(\w+):-\}")


class Part(NamedTuple):
    """A part of a service: its kind, and its name within it."""

    kind: str  # variable, mount, memory, shared memory, GPU
    name: str

    def __str__(self) -> str:
        """Return what a test is called by."""
        return f"{self.kind} {self.name}"


def parts_of(service: Service) -> list[Part]:
    """Return every part of a service that can be taken away."""
    found = [Part("variable", name) for name in service.get("environment", {})]
    found += [Part("mount", volume["target"]) for volume in service.get("volumes", ())]
    found += [Part("memory", text.partition(":")[0]) for text in service.get("tmpfs", ())]
    found += [Part("shared memory", "/dev/shm")] if "shm_size" in service else []
    return found + ([Part("GPU", "nvidia")] if "deploy" in service else [])


def without(service: Service, part: Part) -> Service:
    """Return a service without one of its parts."""
    left = copy.deepcopy(service)
    match part.kind:
        case "variable":
            del left["environment"][part.name]
        case "mount":
            left["volumes"] = [item for item in left["volumes"] if item["target"] != part.name]
        case "memory":
            left["tmpfs"] = [text for text in left["tmpfs"] if text.partition(":")[0] != part.name]
        case "shared memory":
            del left["shm_size"]
        case "GPU":
            del left["deploy"]
    assert len(parts_of(left)) == len(parts_of(service)) - 1
    return left


def is_passed_on(service: Service, part: Part) -> bool:
    """Whether a part has a value only where the user has set it."""
    value = service.get("environment", {}).get(part.name, "")
    return part.kind == "variable" and PASSED_ON.fullmatch(value) is not None


def composed(engine: Path, checkpoint: Path) -> Service:
    """Return the service of an engine that leaves its weights in a checkpoint."""
    weights = WeightsMount(checkpoint, CHECKPOINT_MOUNT)
    found = compose_file(ComposeSpec(engine, "nemotrt:rtx", weights, model_name="nano"))
    [service] = found["services"].values()
    return dict(service)


def pod(claim: Path, engine: str, checkpoint: str) -> Service:
    """Return the pod of such an engine, whose claim holds both, as a service."""
    spec = ClusterSpec(
        "nemotrt:rtx", claim="engines", engine_path=engine, checkpoint_path=checkpoint
    )
    told = deployment(spec)["spec"]["template"]["spec"]
    [container] = told["containers"]
    kinds = {volume["name"]: volume for volume in told["volumes"]}
    service: Service = {
        "command": container["command"],
        "environment": {item["name"]: item["value"] for item in container.get("env", ())},
        "volumes": [],
        "tmpfs": [],
        "read_only": container["securityContext"]["readOnlyRootFilesystem"],
        "healthcheck": {"test": ["CMD", "python3", "-c", _asking(container["startupProbe"])]},
    }
    for mount in container["volumeMounts"]:
        target, volume = mount["mountPath"], kinds[mount["name"]]
        if "persistentVolumeClaim" in volume:
            source = str(claim / mount["subPath"])
            volume = {"source": source, "target": target, "read_only": mount["readOnly"]}
            service["volumes"].append(volume)
        elif volume["emptyDir"].get("medium") == "Memory":
            service["shm_size"] = volume["emptyDir"]["sizeLimit"].lower().replace("i", "")
        else:
            service["tmpfs"].append(target)
    if "nvidia.com/gpu" in container["resources"]["limits"]:
        service["deploy"] = {}
    return service


def _asking(probe: dict[str, Any]) -> str:
    """Return the program that asks what a probe asks."""
    url = f"http://127.0.0.1:9000{probe['httpGet']['path']}"
    return f"import urllib.request; urllib.request.urlopen('{url}', timeout=5)"
