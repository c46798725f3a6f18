"""Kubernetes manifests for an engine: replicas scale on the cluster, a replica is one pod."""

from dataclasses import dataclass
from typing import Any

from nemotrt.errors import ConfigError
from nemotrt.serve.deploy.mounts import CHECKPOINT_MOUNT
from nemotrt.serve.deploy.names import NameForm, check_name, check_sub_path
from nemotrt.serve.triton.repository import check_model_name

Manifest = dict[str, Any]
PORTS = {"openai": 9000}
ENGINE_MOUNT = "/engine"
RUN_FOLDER = "/run/nemotrt"
GRACE_MARGIN_S = 30


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """What the manifests are to say; `num_gpus` are of one pod."""

    name: str
    image: str
    claim: str  # the PersistentVolumeClaim that holds the engine directory, and its checkpoint
    engine_path: str = "engine"  # inside the claim
    checkpoint_path: str | None = None  # inside the claim; None: the engine holds its weights
    num_gpus: int = 1
    gpu_product: str | None = None  # node label of NVIDIA's GPU feature discovery
    min_replicas: int = 1
    max_replicas: int = 1
    model_name: str = "llm"
    target_queue_s: float = 2.0  # wait for a slot, above which another replica is added
    drain_s: int = 60
    memory_gib: int | None = None  # a pod's limit; the kept prefixes lie within it
    prefix_cache_gib: float | None = None  # None: a share of what is free of it
    key_secret: str | None = None  # the Secret whose `keys` are the API keys
    namespace: str = "default"

    def __post_init__(self) -> None:
        """Check the ranges and the names."""
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ConfigError(
                f"replicas must be 1 or more, at most {self.max_replicas}; got {self.min_replicas}."
            )
        if self.num_gpus < 0:
            raise ConfigError(f"num_gpus must be 0 or more, got {self.num_gpus}.")
        check_memory(self.memory_gib, self.prefix_cache_gib)
        check_model_name(self.model_name)
        check_name("--name", self.name, NameForm.LABEL)
        check_name("--namespace", self.namespace, NameForm.LABEL)
        check_name("--claim", self.claim, NameForm.SUBDOMAIN)
        check_name("--image", self.image, NameForm.IMAGE)
        if self.key_secret is not None:
            check_name("--key-secret", self.key_secret, NameForm.SUBDOMAIN)
        if self.gpu_product is not None:
            check_name("--gpu-product", self.gpu_product, NameForm.VALUE)
        check_sub_path("--engine-path", self.engine_path)
        if self.checkpoint_path is not None:
            check_sub_path("--checkpoint-path", self.checkpoint_path)


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


def check_memory(memory_gib: int | None, prefix_cache_gib: float | None) -> None:
    """Raise ConfigError for kept prefixes that leave a container no memory for its engine."""
    if prefix_cache_gib is not None and prefix_cache_gib < 0:
        raise ConfigError(f"--prefix-cache-gib must be 0 or more, got {prefix_cache_gib:g}.")
    if memory_gib is not None and memory_gib < 1:
        raise ConfigError(f"--memory-gib must be 1 or more, got {memory_gib}.")
    if memory_gib is not None and prefix_cache_gib is not None and prefix_cache_gib >= memory_gib:
        raise ConfigError(
            f"--prefix-cache-gib {prefix_cache_gib:g} lies within --memory-gib {memory_gib}, "
            "beside the engine: give less of the one, or more of the other."
        )


def serve_command(
    model_name: str, drain_s: int, checkpoint: str | None, prefix_cache_gib: float | None
) -> list[str]:
    """Return what a container runs: its port is open to the container's own network alone.

    `checkpoint` is where the container sees the engine's weights, None where the engine holds them.
    """
    command = ["nemotrt", "serve", ENGINE_MOUNT, "--name", model_name, "--host", "0.0.0.0"]
    command += [] if checkpoint is None else ["--checkpoint", checkpoint]
    command += (
        [] if prefix_cache_gib is None else ["--prefix-cache-gib", f"{prefix_cache_gib:.12g}"]
    )
    return [*command, "--port", str(PORTS["openai"]), "--drain-s", str(drain_s), "--logs"]


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
    environment: list[Manifest] = [
        {"name": "NEMOTRT_RUN_DIR", "value": RUN_FOLDER},
        {"name": "HOME", "value": "/tmp"},  # of caches; the root is read-only
    ]
    if spec.key_secret is not None:
        source = {"secretKeyRef": {"name": spec.key_secret, "key": "keys"}}
        environment.append({"name": "NEMOTRT_API_KEYS", "valueFrom": source})
    checkpoint = None if spec.checkpoint_path is None else CHECKPOINT_MOUNT
    container: Manifest = {
        "name": "server",
        "image": spec.image,
        "command": serve_command(spec.model_name, spec.drain_s, checkpoint, spec.prefix_cache_gib),
        "env": environment,
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
