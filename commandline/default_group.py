"""A group of commands one of which needs no name."""

from typing import Any

import click


class DefaultGroup(click.Group):
    """A group with a default command: `plan MODEL` and `plan sweep MODEL` side by side.

    Arguments that begin with no subcommand are the default's. A hidden default has
    its help and its usage from the group.
    """

    def __init__(self, *args: Any, default: str = "run", **more: Any) -> None:
        """Take click's parameters, and the name of the default command."""
        super().__init__(*args, **more)
        self.default_name = default

    @property
    def _hidden(self) -> click.Command | None:
        """The default command, if it has no help of its own."""
        default = self.commands[self.default_name]
        return default if default.hidden else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default's name before arguments that name no subcommand."""
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if not self.no_args_is_help and not args:
            args = [self.default_name]
        if args and args[0] not in self.commands and args[0] not in own:
            args = [self.default_name, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a wrong use of a hidden default shows the group's own usage."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            if self._hidden and error.ctx and error.ctx.info_name == self.default_name:
                error.ctx = ctx
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a hidden default's in place of the group's, then the commands."""
        if self._hidden is None:
            super().format_options(ctx, formatter)
            return
        self._hidden.format_options(ctx, formatter)
        self.format_commands(ctx, formatter)
