"""Kubernetes manifests for an engine: replicas scale on the cluster, a replica is one pod."""

from typing import Any

from nemotrt.commandline.options import words_of
from nemotrt.serve.deploy.mounts import CHECKPOINT_MOUNT
from nemotrt.serve.deploy.specs import PORTS, ClusterSpec, ComposeSpec
from nemotrt.serve.logs.options import LogOptions

Manifest = dict[str, Any]
ENGINE_MOUNT = "/engine"
RUN_FOLDER = "/run/nemotrt"
GRACE_MARGIN_S = 30


def manifests(spec: ClusterSpec) -> list[Manifest]:
    """Return the manifests, in the order in which they are applied."""
    found = [deployment(spec), service(spec), pod_monitor(spec)]
    return [*found, autoscaler(spec)] if spec.max_replicas > spec.min_replicas else found


def deployment(spec: ClusterSpec) -> Manifest:
    """Return the Deployment: one server a pod, drained before it is replaced."""
    pod: Manifest = {
        "terminationGracePeriodSeconds": spec.drain_s + GRACE_MARGIN_S,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000},
        "containers": [_container(spec)],
        "volumes": _volumes(spec),
    }
    if spec.gpu_product is not None:
        pod["nodeSelector"] = {"nvidia.com/gpu.product": spec.gpu_product}
    if spec.num_gpus:
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists"}]
    return _object("apps/v1", "Deployment", spec) | {
        "spec": {
            "replicas": spec.min_replicas,
            "selector": {"matchLabels": _labels(spec)},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": _labels(spec)}, "spec": pod},
        }
    }


def service(spec: ClusterSpec) -> Manifest:
    """Return the Service before the OpenAI endpoint; Triton stays inside the pod."""
    ports = [{"name": "openai", "port": PORTS["openai"], "targetPort": "openai"}]
    return _object("v1", "Service", spec) | {"spec": {"selector": _labels(spec), "ports": ports}}


def autoscaler(spec: ClusterSpec) -> Manifest:
    """Return the HPA on queue time; Prometheus' adapter brings it to the custom-metrics API."""
    metric = {
        "type": "Pods",
        "pods": {
            "metric": {"name": "nemotrt_queue_age_seconds"},
            "target": {"type": "AverageValue", "averageValue": f"{spec.target_queue_s * 1e3:.0f}m"},
        },
    }
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": spec.name}
    return _object("autoscaling/v2", "HorizontalPodAutoscaler", spec) | {
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": spec.min_replicas,
            "maxReplicas": spec.max_replicas,
            "metrics": [metric],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
        }
    }


def pod_monitor(spec: ClusterSpec) -> Manifest:
    """Return the PodMonitor of the Prometheus operator."""
    endpoint: Manifest = {"port": "openai", "path": "/metrics", "interval": "15s"}
    if spec.key_secret is not None:
        endpoint["authorization"] = {"credentials": {"name": spec.key_secret, "key": "metrics"}}
    return _object("monitoring.coreos.com/v1", "PodMonitor", spec) | {
        "spec": {"selector": {"matchLabels": _labels(spec)}, "podMetricsEndpoints": [endpoint]}
    }


def serve_command(spec: ClusterSpec | ComposeSpec, checkpoint: str | None) -> list[str]:
    """Return what a container runs: its port is open to the container's own network alone.

    `checkpoint` is where the container sees the engine's weights, None where the engine holds them.
    """
    command = ["nemotrt", "serve", ENGINE_MOUNT, "--name", spec.model_name, "--host", "0.0.0.0"]
    command += [] if checkpoint is None else ["--checkpoint", checkpoint]
    if spec.prefix_cache_gib is not None:
        command += ["--prefix-cache-gib", f"{spec.prefix_cache_gib:.12g}"]
    command += ["--port", str(PORTS["openai"]), "--drain-s", str(spec.drain_s), "--logs"]
    return command + words_of(LogOptions(log_format=spec.log_format))


def _container(spec: ClusterSpec) -> Manifest:
    """Return the server's container."""
    held = {ENGINE_MOUNT: spec.engine_path}
    if spec.checkpoint_path is not None:
        held[CHECKPOINT_MOUNT] = spec.checkpoint_path
    mounts: list[Manifest] = [
        *(
            {"name": "engine", "mountPath": target, "subPath": path, "readOnly": True}
            for target, path in held.items()
        ),
        {"name": "shared-memory", "mountPath": "/dev/shm"},
        {"name": "run", "mountPath": RUN_FOLDER},
        {"name": "temporary", "mountPath": "/tmp"},
    ]
    # Where it writes, its image says: HOME and NEMOTRT_RUN_DIR.
    environment: list[Manifest] = []
    if spec.key_secret is not None:
        source = {"secretKeyRef": {"name": spec.key_secret, "key": "keys"}}
        environment.append({"name": "NEMOTRT_API_KEYS", "valueFrom": source})
    checkpoint = None if spec.checkpoint_path is None else CHECKPOINT_MOUNT
    container: Manifest = {
        "name": "server",
        "image": spec.image,
        "command": serve_command(spec, checkpoint),
        **({"env": environment} if environment else {}),
        "ports": [{"name": name, "containerPort": port} for name, port in PORTS.items()],
        "volumeMounts": mounts,
        "startupProbe": _probe("/health/ready", period_s=5, failures=360),
        "readinessProbe": _probe("/health/ready", period_s=5, failures=2),
        "livenessProbe": _probe("/health/live", period_s=10, failures=6),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    limits = {"nvidia.com/gpu": str(spec.num_gpus)} if spec.num_gpus else {}
    limits |= {} if spec.memory_gib is None else {"memory": f"{spec.memory_gib}Gi"}
    if limits:
        container["resources"] = {"limits": limits}
    return container


def _volumes(spec: ClusterSpec) -> list[Manifest]:
    """Return the pod's volumes; Triton's stubs need shared memory of their own size."""
    claim = {"claimName": spec.claim, "readOnly": True}
    return [
        {"name": "engine", "persistentVolumeClaim": claim},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "run", "emptyDir": {}},
        {"name": "temporary", "emptyDir": {}},
    ]


def _probe(path: str, *, period_s: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "openai"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _object(version: str, kind: str, spec: ClusterSpec) -> Manifest:
    """Return the head of a manifest."""
    metadata = {"name": spec.name, "namespace": spec.namespace, "labels": _labels(spec)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _labels(spec: ClusterSpec) -> dict[str, str]:
    return {"app.kubernetes.io/name": "nemotrt", "app.kubernetes.io/instance": spec.name}
