"""`nemotrt serve repo`: parse, call, print."""

from pathlib import Path
from typing import Any

import click

from nemotrt.commandline import (
    PATH,
    checkpoint_option,
    config_option,
    dry_run_option,
    force_option,
    output_option,
)
from nemotrt.errors import ConfigError


@click.command()
@click.argument("engine", type=PATH)
@output_option("New folder.", required=True, metavar="REPO")
@click.option("--name", "model_name", default="llm", show_default=True, help="The model's name.")
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
@click.option("--python", help="In the container, with nemotrt.  [default: python3]")
@click.option("--max-queue-size", type=click.IntRange(1), help="Waiting requests.  [default: 512]")
@click.option("--max-queue-s", type=float, help="Longest wait for a slot.  [default: 300]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of the engine.")
@force_option
@dry_run_option
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
    max_queue_size: int | None,
    max_queue_s: float | None,
    threads: int | None,
    force: bool,
    dry_run: bool,
) -> None:
    """Write the model repository that tritonserver loads.

    With --target container its model starts the engine's process by itself, so that any Triton can
    serve it: tritonserver --model-repository=REPO
    """
    from nemotrt.engines.artefact.manifest import read_manifest
    from nemotrt.serve.engine.admission import QueueLimits
    from nemotrt.serve.triton.repository import (
        RepositorySpec,
        Target,
        model_config,
        write_repository,
    )
    from nemotrt.serve.triton.workspace import is_plain

    limits = {"--max-queue-size": max_queue_size, "--max-queue-s": max_queue_s}
    limits["--threads"] = threads
    given: dict[str, Any] = {name: v for name, v in limits.items() if v is not None}
    if target_name == Target.LOCAL:
        if given or engine_path or include_engine or python or checkpoint or checkpoint_path:
            raise ConfigError(
                "the local repository is for `nemotrt serve`, which takes the engine's options "
                "itself; give --target container."
            )
        spec = RepositorySpec(model_name)
    else:
        if engine_path and include_engine:
            raise ConfigError("give --engine-path or --include-engine, not both.")
        if max_queue_s is not None:
            QueueLimits(max_queue_s=max_queue_s)
        if checkpoint_path and include_engine:
            raise ConfigError("give --checkpoint-path or --include-engine, not both.")
        path = None if include_engine else engine_path or str(engine.absolute())
        if path is not None:
            given |= _weights_option(engine, checkpoint, checkpoint_path)
        words = tuple(word for name, value in given.items() for word in (name, str(value)))
        spec = RepositorySpec(model_name, Target.CONTAINER, path, python or "python3", words)
    if dry_run:
        read_manifest(engine)
        click.echo(model_config(spec), nl=False)
        return
    write_repository(engine, output, spec, force=force, checkpoint=checkpoint)
    click.echo(f"{output}: model {model_name!r} for {target_name}")
    if not is_plain(output.absolute()):
        click.echo(
            "note: Triton starts the model by a line of bash with the repository's path in it; "
            "let it load REPO by a path of ASCII letters, digits, '.', '_' and '-'.",
            err=True,
        )


def _weights_option(engine: Path, checkpoint: str | None, path: str | None) -> dict[str, str]:
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
        return {"--checkpoint": path}
    if place is None or place.rule in (Rule.PACKED, Rule.BUILT):
        return {}
    return {"--checkpoint": str(place.path.absolute())}
