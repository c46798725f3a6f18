"""The `nemotrt` command: a root group that imports a subcommand only when it is looked up."""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from nemotrt.needs import cure_of_module

try:
    import click
except ModuleNotFoundError:  # which renders what is told of all others
    raise SystemExit(
        f"Error: the Python module click is not installed: {cure_of_module('click')}."
    ) from None

from nemotrt.commandline.process import SignalledExit, ended_by_signals, open_standard_files
from nemotrt.commandline.shared import is_asked
from nemotrt.engines.checkpoint.hub.token import token_held
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.files.writing import unfit_place

NO_TEMPORARY_FOLDER = "No usable temporary directory"  # what Python says
# A subcommand's name: where it is, below this package, and its line of --help.
COMMANDS = {
    "plan": (
        "profiles.planning.command:plan",
        "Predict memory and throughput before a GPU is rented.",
    ),
    "quantize": ("quantize.command:quantize", "Write a quantized checkpoint."),
    "evaluate": (
        "quantize.quality.command:evaluate",
        "Compare a quantized checkpoint or an engine with its source.",
    ),
    "build": ("build.command:build", "Build an engine directory from a checkpoint."),
    "pack": ("build.pack_command:pack", "Make one folder of an engine and its weights."),
    "inspect": ("inspection:inspect", "Print and verify an engine directory or a checkpoint."),
    "generate": ("engines.command:generate", "Generate text with an engine."),
    "chat": ("chat:chat", "Talk with an engine in a terminal."),
    "serve": ("serve.command:serve", "Serve an engine with Triton Inference Server."),
    "profile": ("profiles.command:profile", "Measure a running server."),
    "compare": ("profiles.command:compare", "Judge one measured run against another."),
    "report": (
        "profiles.command:report",
        "Rebuild the report of measured runs, or compare several.",
    ),
    "check": ("build.check.command:check", "Check whether this machine computes correctly."),
    "doctor": ("doctor:doctor", "Say what this machine can do."),
    "demo": ("demo:demo", "Run the whole chain on the built-in tiny model."),
}


def _dangling(word: str) -> str:
    """Say so where a word of the command line is a link to nothing, or an option's value is."""
    path = word.partition("=")[2] or word
    if not os.path.islink(path) or os.path.exists(path):  # Path's would raise for a long prompt
        return ""
    return (
        f" {path} is a link to {os.readlink(path)}, which is not here: a folder that is copied or "
        "mounted needs what its links lead to."
    )


class LazyGroup(click.Group):
    """A group whose subcommands live in COMMANDS, so `--help` imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommand names in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return subcommand `cmd_name`, importing its module, or None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        command: click.Command = getattr(import_module(f"nemotrt.{module}"), attribute)
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run as click does, with standard files even where the caller has closed them."""
        open_standard_files()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; Ctrl-C is code 130, a lost package or an unfit disk is one line."""
        words = [*ctx._protected_args, *ctx.args]
        try:
            with token_held(), ended_by_signals():
                return super().invoke(ctx)
        except SignalledExit:
            click.echo("Ended by a signal.", err=True)
            raise
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)
        except click.ClickException as error:
            told = "".join(_dangling(word) for word in dict.fromkeys(words))
            vars(error)["message"] += told  # which click calls final
            raise
        except ModuleNotFoundError as error:
            name = error.name or ""
            if name.partition(".")[0] in ("", __package__):
                raise
            raise EnvironmentUnfitError(
                f"the Python module {name} is not installed: {cure_of_module(name)}."
            ) from error
        except OSError as error:
            if NO_TEMPORARY_FOLDER in str(error):
                raise EnvironmentUnfitError(
                    "No folder takes temporary files: set TMPDIR to one that does; a container "
                    "has /tmp by --tmpfs /tmp."
                ) from error
            found = unfit_place(error)
            if found is None:
                raise
            raise found from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command list from COMMANDS, without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


def make_engine(checkpoint: str, rebuild: bool) -> Path:
    """Return the engine of a checkpoint, from the cache; it goes by the flags of the command."""
    from nemotrt.build.cached import cached_engine

    dry_run, quiet = is_asked("dry_run"), is_asked("quiet")
    found = cached_engine(
        checkpoint,
        rebuild=rebuild,
        dry_run=dry_run,
        quiet=quiet or is_asked("as_json"),
        say=lambda line: None if quiet else click.echo(line, err=True),
    )
    if dry_run:
        click.get_current_context().exit()
    return found


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="nemotrt")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Take Nemotron-Nano-9B-v2 from a checkpoint to a measured deployment."""
    ctx.obj = make_engine  # for the commands of rooms that know of no building
