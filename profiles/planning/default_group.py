"""A click group with a default: `plan MODEL` and `plan sweep MODEL` side by side."""

from typing import Any

import click


class DefaultGroup(click.Group):
    """Runs the subcommand that the first word names, else the one called `default_name`."""

    default_name = "model"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default's name before arguments that name no subcommand."""
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if args and args[0] not in self.commands and args[0] not in own:
            args = [self.default_name, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a wrong use of the default shows the group's own usage."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if error.ctx is not None and error.ctx.info_name == self.default_name:
                error.ctx = ctx
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the default's options, then the subcommands."""
        self.commands[self.default_name].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write both ways to call the group."""
        formatter.write_usage(ctx.command_path, "MODEL [OPTIONS] | COMMAND [OPTIONS]")
