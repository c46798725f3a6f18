"""`nemotrt serve k8s` and `nemotrt serve compose`: parse, call, print."""

from pathlib import Path
from typing import Any

import click

from nemotrt.commandline import (
    ABOVE_0,
    COUNT,
    PATH,
    click_option,
    config_option,
    told_fields,
)
from nemotrt.engines.artefact.options import checkpoint_option
from nemotrt.engines.checkpoint.hub.parameter import offline_option
from nemotrt.engines.runtime.state.kept.options import PrefixCacheOptions

memory_option = click.option(
    "--memory-gib", type=COUNT, help="Limit of a container, in which the kept prefixes lie too."
)
cache_option = next(
    click_option(item, told)
    for item, told in told_fields(PrefixCacheOptions)
    if item.name == "prefix_cache_gib"
)


@click.command()
@click.argument("engine", type=PATH)
@click.option("--image", required=True, help="Container image that has nemotrt and a Triton.")
@click.option("--claim", required=True, help="PersistentVolumeClaim with the engine directory.")
@click.option("--engine-path", default="engine", show_default=True, help="Inside the claim.")
@checkpoint_option
@click.option(
    "--checkpoint-path",
    help="Inside the claim, where ENGINE leaves its weights in a checkpoint.  "
    "[default: checkpoint]",
)
@click.option("--name", default="nemotrt", show_default=True)
@click.option("--model-name", default="llm", show_default=True, help="The model's name.")
@click.option("--namespace", default="default", show_default=True)
@click.option("--gpus", "num_gpus", type=click.IntRange(0), help="Of a pod; default by the engine.")
@click.option("--gpu-product", help="Node label nvidia.com/gpu.product.")
@click.option("--min-replicas", type=int, default=1, show_default=True)
@click.option("--max-replicas", type=int, default=1, show_default=True)
@click.option(
    "--target-queue-s",
    type=ABOVE_0,
    default=2.0,
    show_default=True,
    help="Wait for a slot, above which a replica is added.",
)
@click.option("--drain-s", type=click.IntRange(0), default=60, show_default=True)
@memory_option
@cache_option
@click.option("--key-secret", help="Secret: `keys` are the API keys, `metrics` one for Prometheus.")
@offline_option
@config_option
def k8s(
    engine: Path,
    num_gpus: int | None,
    checkpoint: str | None,
    checkpoint_path: str | None,
    **options: Any,
) -> None:
    """Print Kubernetes manifests (YAML) for ENGINE.

    The claim holds ENGINE and, where ENGINE leaves its weights in a checkpoint and is not packed,
    the checkpoint; --checkpoint is where that is here, to be checked.
    """
    from nemotrt.serve.deploy.kubernetes import ClusterSpec, manifests
    from nemotrt.serve.deploy.mounts import claim_path

    gpus = _num_gpus(engine, num_gpus)
    path = claim_path(engine, checkpoint, checkpoint_path)
    _print(*manifests(ClusterSpec(num_gpus=gpus, checkpoint_path=path, **options)))


@click.command()
@click.argument("engine", type=PATH)
@click.option("--image", required=True, help="Container image that has nemotrt and a Triton.")
@checkpoint_option
@click.option("--name", default="nemotrt", show_default=True, help="The service's name.")
@click.option("--model-name", default="llm", show_default=True, help="The model's name.")
@click.option("--gpus", "num_gpus", type=click.IntRange(0), help="Default by the engine.")
@click.option("--port", type=click.IntRange(1, 65535), default=9000, show_default=True)
@click.option("--drain-s", type=click.IntRange(0), default=60, show_default=True)
@memory_option
@cache_option
@offline_option
@config_option
def compose(engine: Path, num_gpus: int | None, checkpoint: str | None, **options: Any) -> None:
    """Print a compose file (YAML) that serves ENGINE, with its weights, on this host.

    API keys come from $NEMOTRT_API_KEYS, or a .env file beside the compose file.
    """
    from nemotrt.serve.deploy.compose import ComposeSpec, compose_file
    from nemotrt.serve.deploy.mounts import weights_mount

    gpus = _num_gpus(engine, num_gpus)
    weights = weights_mount(engine, checkpoint)
    spec = ComposeSpec(engine.absolute(), num_gpus=gpus, weights=weights, **options)
    _print(compose_file(spec))


def _num_gpus(engine: Path, given: int | None) -> int:
    """Return the GPUs of one server: as given, or those that the engine was built for."""
    from nemotrt.engines.artefact.manifest import read_manifest

    manifest = read_manifest(engine)
    if given is not None:
        return given
    return 0 if manifest.gpu is None else int(manifest.options.get("tp_size", 1))


def _print(*documents: Any) -> None:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes what YAML 1.1 and 1.2 read differently: 1e3 is a number to Kubernetes."""

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = '"' if value[:1] in "+-.0123456789" else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style)

    Dumper.add_representer(str, text)
    click.echo(yaml.dump_all(documents, Dumper=Dumper, sort_keys=False), nl=False)
