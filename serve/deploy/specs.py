"""What the manifests and the compose file are to say: options of commands, and checked names."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nemotrt.commandline.kinds import ABOVE_0, COUNT
from nemotrt.commandline.options import option, required
from nemotrt.engines.runtime.state.kept.options import PrefixCacheOptions
from nemotrt.errors import ConfigError
from nemotrt.serve.deploy.names import NameForm, check_name, check_sub_path
from nemotrt.serve.logs.options import LogFormat, LogOptions
from nemotrt.serve.processes.options import DEFAULT_NAME, check_model_name

if TYPE_CHECKING:
    from nemotrt.serve.deploy.mounts import WeightsMount

PORTS = {"openai": 9000}
NONE_OR_MORE = click.IntRange(0)
[LOG_FORMAT] = [item.metadata for item in fields(LogOptions) if item.name == "log_format"]
[PREFIX_CACHE] = [
    item.metadata for item in fields(PrefixCacheOptions) if item.name == "prefix_cache_gib"
]
IMAGE = "Container image that has nemotrt and a Triton."


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """What the manifests are to say; `num_gpus` are of one pod.

    Paths are inside the claim; without a `checkpoint_path` the engine holds its weights.
    """

    image: str = required(IMAGE)
    claim: str = required("PersistentVolumeClaim with the engine directory.")
    engine_path: str = option("engine", "Path of the engine inside the claim.")
    checkpoint_path: str | None = None
    num_gpus: int = 1
    name: str = option("nemotrt", "Name of the objects that are made.")
    model_name: str = option(DEFAULT_NAME, "The model's name.")
    namespace: str = option("default", "Namespace of the objects that are made.")
    gpu_product: str | None = option(None, "Node label nvidia.com/gpu.product.")
    min_replicas: int = option(1, "Pods.")
    max_replicas: int = option(1, "Pods.")
    target_queue_s: float = option(
        2.0, "Wait for a slot, above which a replica is added.", kind=ABOVE_0
    )
    drain_s: int = option(
        60, "Seconds that running answers have to finish at a stop.", kind=NONE_OR_MORE
    )
    memory_gib: int | None = option(
        None, "Limit of a container, in which the kept prefixes lie too.", kind=COUNT
    )
    prefix_cache_gib: float | None = field(default=None, metadata=PREFIX_CACHE)
    log_format: LogFormat = field(default=LogFormat.HUMAN, metadata=LOG_FORMAT)
    key_secret: str | None = option(
        None, "Secret: `keys` are the API keys, `metrics` one for Prometheus."
    )

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


@dataclass(frozen=True, slots=True)
class ComposeSpec:
    """What the file is to say; `port` is the host's. Without `weights` the engine holds them."""

    engine: Path
    image: str = required(IMAGE)
    weights: "WeightsMount | None" = None
    name: str = option("nemotrt", "The service's name.")
    model_name: str = option(DEFAULT_NAME, "The model's name.")
    num_gpus: int = 1
    port: int = option(
        PORTS["openai"], "Port on this host's loopback address.", kind=click.IntRange(1, 65535)
    )
    drain_s: int = option(
        60, "Seconds that running answers have to finish at a stop.", kind=NONE_OR_MORE
    )
    memory_gib: int | None = option(
        None, "Limit of a container, in which the kept prefixes lie too.", kind=COUNT
    )
    prefix_cache_gib: float | None = field(default=None, metadata=PREFIX_CACHE)
    log_format: LogFormat = field(default=LogFormat.HUMAN, metadata=LOG_FORMAT)

    def __post_init__(self) -> None:
        """Check the names."""
        check_memory(self.memory_gib, self.prefix_cache_gib)
        check_model_name(self.model_name)
        check_name("--name", self.name, NameForm.SERVICE)
        check_name("--image", self.image, NameForm.IMAGE)


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
