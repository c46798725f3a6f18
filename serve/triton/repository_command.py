"""`nemotrt serve repo`: parse, call, print."""

from pathlib import Path

import click

from nemotrt.commandline.kinds import PATH
from nemotrt.commandline.options import one_option, options_of, words_of
from nemotrt.commandline.shared import config_option, dry_run_option, force_option, output_option
from nemotrt.engines.artefact.options import checkpoint_option
from nemotrt.engines.checkpoint.hub.parameter import offline_option
from nemotrt.errors import ConfigError
from nemotrt.serve.logs.options import LogOptions
from nemotrt.serve.processes.options import EngineOptions, FrontOptions


@click.command()
@click.argument("engine", type=PATH)
@output_option("New folder.", required=True, metavar="REPO")
@one_option(FrontOptions, "model_name")
@click.option(
    "--target",
    "target_name",
    type=click.Choice(["local", "container"]),
    default="local",
    show_default=True,
    help="Whose Triton loads it: that of `nemotrt serve`, or NVIDIA's container or any other.",
)
@click.option("--engine-path", help="Where ENGINE lies in the container.  [default: as here]")
@click.option(
    "--include-engine",
    is_flag=True,
    help="Copy ENGINE and its weights into REPO, for object storage.",
)
@checkpoint_option
@click.option(
    "--checkpoint-path",
    help="Where the weights lie in the container, if ENGINE leaves them in a checkpoint.  "
    "[default: as here]",
)
@click.option("--python", help="Python of the container that has nemotrt.  [default: python3]")
@options_of(
    EngineOptions,
    without=("max_chunks_per_s", "target_itl_ms", "drain_s", "checkpoint", "trust_seals", "lora"),
)
@options_of(LogOptions)
@force_option
@dry_run_option
@offline_option
@config_option
def repo(
    engine: Path,
    output: Path,
    model_name: str,
    target_name: str,
    engine_path: str | None,
    include_engine: bool,
    checkpoint: str | None,
    checkpoint_path: str | None,
    python: str | None,
    engine_options: EngineOptions,
    log_options: LogOptions,
    force: bool,
    dry_run: bool,
) -> None:
    """Write the model repository that tritonserver loads.

    With --target container its model starts the engine's process by itself, so that any Triton can
    serve it: tritonserver --model-repository=REPO
    """
    from nemotrt.engines.artefact.manifest import read_manifest
    from nemotrt.files.writing import check_target
    from nemotrt.serve.deploy.mounts import closed_to_containers
    from nemotrt.serve.triton.repository import (
        RepositorySpec,
        Target,
        model_config,
        write_repository,
    )
    from nemotrt.serve.triton.workspace import is_plain

    words = (*words_of(engine_options), *words_of(log_options))
    if target_name == Target.LOCAL:
        if words or engine_path or include_engine or python or checkpoint or checkpoint_path:
            raise ConfigError(
                "the local repository is for `nemotrt serve`, which takes the engine's options "
                "itself; give --target container."
            )
        spec = RepositorySpec(model_name)
    else:
        if engine_path and include_engine:
            raise ConfigError("give --engine-path or --include-engine, not both.")
        if checkpoint_path and include_engine:
            raise ConfigError("give --checkpoint-path or --include-engine, not both.")
        path = None if include_engine else engine_path or str(engine.absolute())
        if path is not None:
            words += _weights_option(engine, checkpoint, checkpoint_path)
        spec = RepositorySpec(model_name, Target.CONTAINER, path, python or "python3", words)
    if dry_run:
        read_manifest(engine)
        click.echo(model_config(spec), nl=False)
        return
    check_target(output, force=force, marks=["*/config.pbtxt"])
    write_repository(engine, output, spec, force=force, checkpoint=checkpoint)
    click.echo(f"{output}: model {model_name!r} for {target_name}")
    if target_name == Target.CONTAINER:
        for folder in (output, *([] if include_engine else [engine])):
            if why := closed_to_containers(folder):
                click.echo(f"note: {why}", err=True)
    if not is_plain(output.absolute()):
        click.echo(
            "note: Triton starts the model by a line of bash with the repository's path in it; "
            "let it load REPO by a path of ASCII letters, digits, '.', '_' and '-'.",
            err=True,
        )


def _weights_option(engine: Path, checkpoint: str | None, path: str | None) -> tuple[str, ...]:
    """Return the option that tells the engine's process of a container where the weights are.

    None is needed where the engine holds them, or finds them in the container as here.
    """
    from nemotrt.engines.artefact.manifest import read_manifest
    from nemotrt.engines.artefact.weights import Rule
    from nemotrt.engines.opening import leaves_weights, weights_place

    manifest = read_manifest(engine)
    place = None
    if checkpoint is not None or path is None:
        place = weights_place(engine, manifest, checkpoint)
    if path is not None:
        if not leaves_weights(manifest):
            raise ConfigError(f"--checkpoint-path: {engine} holds its weights; leave it out.")
        if not path.startswith("/"):
            raise ConfigError(f"--checkpoint-path {path!r} must begin with '/'.")
        return ("--checkpoint", path)
    if place is None or place.rule in (Rule.PACKED, Rule.BUILT):
        return ()
    return ("--checkpoint", str(place.path.absolute()))
