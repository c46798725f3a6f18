"""The manifests against Kubernetes' own schemas, the Prometheus operator's, and compose's."""

import json
import re
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from nemotrt.cli import main

VERSION = "1.30"


# What the operator's own definitions keep of a manifest: an unknown field would be dropped.
KEPT = """
import json, sys
from cloudcoil.models.prometheus_operator.v1 import PodMonitor
monitor = PodMonitor.model_validate(json.load(sys.stdin))
print(json.dumps(monitor.model_dump(mode="json", by_alias=True, exclude_none=True)))
"""


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
        if manifest["kind"] != "PodMonitor":  # a custom resource, see below
            kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_gpus_replicas_and_keys(engine_folder) -> None:
    options = ("--gpus", "2", "--max-replicas", "4", "--key-secret", "keys", "--drain-s", "90")
    options += ("--gpu-product", "NVIDIA-A10G", "--target-queue-s", "1.5")
    found = {item["kind"]: item for item in manifests(engine_folder, *options)}
    pod = found["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A10G"}
    assert pod["terminationGracePeriodSeconds"] > 90
    scaling = found["HorizontalPodAutoscaler"]["spec"]
    assert scaling["maxReplicas"] == 4
    [metric] = scaling["metrics"]
    assert metric["pods"]["metric"]["name"] == "nemotrt_queue_age_seconds"
    assert metric["pods"]["target"]["averageValue"] == "1500m"
    assert found["Service"]["spec"]["selector"].items() <= (
        found["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    )
    assert "NEMOTRT_API_KEYS" in {entry["name"] for entry in container["env"]}


def test_a_cpu_engine_asks_for_no_gpu(engine_folder) -> None:
    found = {item["kind"]: item for item in manifests(engine_folder)}
    assert set(found) == {"Deployment", "Service", "PodMonitor"}
    [container] = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert "resources" not in container


def test_memory_counts_the_kept_prefixes(engine_folder) -> None:
    options = ("--memory-gib", "24", "--prefix-cache-gib", "1.5")
    [deployment] = [m for m in manifests(engine_folder, *options) if m["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"limits": {"memory": "24Gi"}}
    service = compose(engine_folder, *options)["services"]["nemotrt"]
    assert service["mem_limit"] == "24g"
    for command in (container["command"], service["command"]):
        assert command[command.index("--prefix-cache-gib") + 1] == "1.5"
    for wrong in (("24", "24"), ("2", "3"), ("0", "1"), ("2", "-1")):
        manifests(engine_folder, "--memory-gib", wrong[0], "--prefix-cache-gib", wrong[1], code=2)


def test_logs_and_traces_of_a_container(engine_folder) -> None:
    for options, told in (((), []), (("--log-format", "json"), ["--log-format", "json"])):
        [deployment] = [m for m in manifests(engine_folder, *options) if m["kind"] == "Deployment"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        service = compose(engine_folder, *options)["services"]["nemotrt"]
        for command in (container["command"], service["command"]):
            assert command[command.index("--logs") + 1 :] == told
    endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
    assert service["environment"][endpoint] == f"${{{endpoint}:-}}"
    manifests(engine_folder, "--log-format", "xml", code=2)


@pytest.mark.parametrize("name", ["1e3", "0x1f", "12e03", "1-1", "0"])
def test_a_name_stays_text_to_readers_of_yaml_1_2(engine_folder, name) -> None:
    """JSON's numbers are YAML 1.2's; PyYAML writes 1e3 as it is."""
    options = ["--image", "i", "--claim", name, "--name", name, "--key-secret", name]
    for words in (["k8s", str(engine_folder), *options], ["compose", str(engine_folder), *COMPOSE]):
        words = [word if word != "NAME" else name for word in words]
        result = CliRunner().invoke(main, ["serve", *words])
        assert result.exit_code == 0, result.output
        assert not re.search(
            rf"(name|claimName|- --name\n *-): *{name}$", result.stdout, re.MULTILINE
        )
        assert f'"{name}"' in result.stdout


COMPOSE = ["--image", "i", "--model-name", "NAME"]


def test_replicas_are_checked(engine_folder) -> None:
    manifests(engine_folder, "--min-replicas", "3", code=2)


@pytest.mark.slow
def test_the_prometheus_operators_definitions_know_the_pod_monitor(engine_folder, tmp_path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    pip = [python, "-m", "pip", "install", "--quiet", "cloudcoil-models-prometheus-operator"]
    subprocess.run(pip, check=True, timeout=600)
    found = {item["kind"]: item for item in manifests(engine_folder, "--key-secret", "keys")}
    monitor = found["PodMonitor"]
    kept = subprocess.run(
        [python, "-c", KEPT], input=json.dumps(monitor), capture_output=True, text=True, check=True
    )
    assert json.loads(kept.stdout) == monitor


def compose(engine: Path, *options: str) -> dict[str, Any]:
    base = ["serve", "compose", str(engine), "--image", "example/nemotrt:1", *options]
    result = CliRunner().invoke(main, base)
    assert result.exit_code == 0, result.output
    file: dict[str, Any] = yaml.safe_load(result.stdout)
    return file


@pytest.mark.slow
def test_composes_own_schema_accepts_the_file(engine_folder, tmp_path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*pip, tmp_path / "compose", "docker-compose==1.29.2"], check=True, timeout=600)
    schema = json.loads((tmp_path / "compose/compose/config/compose_spec.json").read_text())
    for options in ((), ("--gpus", "2", "--port", "9100")):
        file = compose(engine_folder, *options)
        jsonschema.Draft7Validator(schema).validate(file)
        file["services"]["nemotrt"]["shm_sizes"] = "1gb"
        assert not jsonschema.Draft7Validator(schema).is_valid(file)


def test_a_compose_file_is_loopback_and_read_only(engine_folder) -> None:
    service = compose(engine_folder, "--gpus", "2", "--port", "9100")["services"]["nemotrt"]
    assert service["ports"] == ["127.0.0.1:9100:9000"]
    assert service["read_only"] is True and service["volumes"][0]["read_only"] is True
    [devices] = service["deploy"]["resources"]["reservations"]["devices"]
    assert (devices["driver"], devices["count"]) == ("nvidia", 2)
    assert "deploy" not in compose(engine_folder)["services"]["nemotrt"]  # a CPU engine


def test_what_the_containers_run_is_a_command_of_ours(engine_folder) -> None:
    """The same words, but for the mount, pass `nemotrt serve --dry-run`."""
    [deployment] = [m for m in manifests(engine_folder) if m["kind"] == "Deployment"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    service = compose(engine_folder)["services"]["nemotrt"]
    assert service["command"] == container["command"]
    words = [str(engine_folder) if word == "/engine" else word for word in service["command"][1:]]
    options = ["--dry-run", "--no-triton", "--run-dir", str(engine_folder.parent / "run")]
    result = CliRunner().invoke(main, [*words, *options])
    assert result.exit_code == 0 and "0.0.0.0:9000" in result.output
