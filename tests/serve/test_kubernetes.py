"""The manifests against Kubernetes' own schemas."""

from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from nemotrt.cli import main

VERSION = "1.30"


def manifests(engine, *options: str, code: int = 0) -> list[dict[str, Any]]:
    base = ["serve", "k8s", str(engine), "--image", "example/nemotrt:1", "--claim", "models"]
    result = CliRunner().invoke(main, [*base, *options])
    assert result.exit_code == code, result.output
    return list(yaml.safe_load_all(result.stdout)) if code == 0 else []


@pytest.mark.parametrize(
    "options", [(), ("--gpus", "2", "--max-replicas", "4", "--key-secret", "keys")]
)
def test_the_schemas_accept_the_manifests(engine_folder, options) -> None:
    for manifest in manifests(engine_folder, *options):
        if manifest["kind"] != "PodMonitor":  # a custom resource: no schema in Kubernetes itself
            kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_gpus_replicas_and_keys(engine_folder) -> None:
    options = ("--gpus", "2", "--max-replicas", "4", "--key-secret", "keys", "--drain-s", "90")
    options += ("--gpu-product", "NVIDIA-A10G")
    found = {item["kind"]: item for item in manifests(engine_folder, *options)}
    pod = found["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A10G"}
    assert pod["terminationGracePeriodSeconds"] > 90
    assert found["HorizontalPodAutoscaler"]["spec"]["maxReplicas"] == 4
    assert "NEMOTRT_API_KEYS" in {entry["name"] for entry in container["env"]}


def test_a_cpu_engine_asks_for_no_gpu(engine_folder) -> None:
    found = {item["kind"]: item for item in manifests(engine_folder)}
    assert set(found) == {"Deployment", "Service", "PodMonitor"}
    [container] = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert "resources" not in container


def test_replicas_are_checked(engine_folder) -> None:
    manifests(engine_folder, "--min-replicas", "3", code=2)
