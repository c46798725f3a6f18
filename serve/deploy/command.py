"""`nemotrt serve k8s` and `nemotrt serve compose`: parse, call, print."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from nemotrt.commandline.kinds import PATH
from nemotrt.commandline.options import options_of
from nemotrt.commandline.shared import config_option
from nemotrt.engines.artefact.options import checkpoint_option
from nemotrt.engines.checkpoint.hub.parameter import offline_option
from nemotrt.serve.deploy.specs import NONE_OR_MORE, ClusterSpec, ComposeSpec


@click.command()
@click.argument("engine", type=PATH)
@options_of(ClusterSpec, without=("num_gpus", "checkpoint_path"))
@click.option("--gpus", "num_gpus", type=NONE_OR_MORE, help="GPUs of a pod; default by the engine.")
@checkpoint_option
@click.option(
    "--checkpoint-path",
    help="Path of the weights inside the claim, where ENGINE leaves them in a checkpoint.  "
    "[default: checkpoint]",
)
@offline_option
@config_option
def k8s(
    engine: Path,
    cluster_spec: ClusterSpec,
    num_gpus: int | None,
    checkpoint: str | None,
    checkpoint_path: str | None,
) -> None:
    """Print Kubernetes manifests (YAML) for ENGINE.

    The claim holds ENGINE and, where ENGINE leaves its weights in a checkpoint and is not packed,
    the checkpoint; --checkpoint is where that is here, to be checked.
    """
    from nemotrt.serve.deploy.kubernetes import manifests
    from nemotrt.serve.deploy.mounts import claim_path

    gpus = _num_gpus(engine, num_gpus)
    path = claim_path(engine, checkpoint, checkpoint_path)
    _print(*manifests(replace(cluster_spec, num_gpus=gpus, checkpoint_path=path)))


@click.command()
@click.argument("engine", type=PATH)
@options_of(ComposeSpec, without=("num_gpus", "weights"))
@click.option(
    "--gpus", "num_gpus", type=NONE_OR_MORE, help="GPUs of the container; default by the engine."
)
@checkpoint_option
@offline_option
@config_option
def compose(compose_spec: ComposeSpec, num_gpus: int | None, checkpoint: str | None) -> None:
    """Print a compose file (YAML) that serves ENGINE, with its weights, on this host.

    API keys come from $NEMOTRT_API_KEYS, or a .env file beside the compose file, and so does where
    spans go: $OTEL_EXPORTER_OTLP_ENDPOINT.
    """
    from nemotrt.serve.deploy.compose import compose_file
    from nemotrt.serve.deploy.mounts import check_readable, weights_mount

    engine = compose_spec.engine.absolute()
    gpus = _num_gpus(engine, num_gpus)
    weights = weights_mount(engine, checkpoint)
    for folder in (engine, *([weights.source] if weights else [])):
        check_readable(folder)
    spec = replace(compose_spec, engine=engine, num_gpus=gpus, weights=weights)
    _print(compose_file(spec))


def _num_gpus(engine: Path, given: int | None) -> int:
    """Return the GPUs of one server: as given, or those that the engine was built for.

    Raises:
        EnvironmentUnfitError: another program runs the engine.
    """
    from nemotrt.engines.artefact.manifest import read_manifest
    from nemotrt.engines.opening import check_runs_here

    manifest = read_manifest(engine)
    check_runs_here(engine, manifest)
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
