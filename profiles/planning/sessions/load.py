"""The sessions that are planned: those of the preset `agents`, in the words of `profile`."""

from collections.abc import Collection
from dataclasses import dataclass, fields, replace

import click

from nemotrt.commandline.kinds import ABOVE_0, COUNT, FloatRange
from nemotrt.commandline.options import option
from nemotrt.errors import ConfigError
from nemotrt.profiles.load.choice.presets import preset
from nemotrt.profiles.planning.answers.options import DeploymentOptions

PRESET = "agents"
PRESETS_OWN = f"that of the preset {PRESET}"


@dataclass(frozen=True, slots=True)
class SessionLoad:
    """`concurrency` agents, each with sessions of `num_turns` requests, one after another.

    Every prompt begins with the same `system_tokens`: the system's text and the tools. A turn adds
    `isl` tokens to the text so far and gets `osl`, which the next prompt has too. Between an answer
    and the next prompt of its session an agent takes `think_s`.
    """

    concurrency: int
    num_turns: int
    system_tokens: int
    isl: int
    osl: int
    think_s: float

    def prompt_tokens(self, turn: int) -> int:
        """Return how long the prompt of a turn is; turns count from 1."""
        return self.system_tokens + (turn - 1) * (self.isl + self.osl) + self.isl

    @property
    def longest_tokens(self) -> int:
        """Tokens of a session at its end."""
        return self.prompt_tokens(self.num_turns) + self.osl

    @property
    def mean_think_s(self) -> float:
        """Seconds before a turn, on average: none before the first of a session."""
        return self.think_s * (self.num_turns - 1) / self.num_turns

    def common_tokens(self, turn: int) -> int:
        """Return how many tokens of a turn's prompt some earlier prompt had.

        The prompt before is all of it: this family's template drops an answer's reasoning, so that
        the next prompt has the answer otherwise than it was generated.
        """
        return self.prompt_tokens(turn - 1) if turn > 1 else self.system_tokens


def agents_load() -> SessionLoad:
    """Return the preset's sessions, of one agent."""
    found = preset(PRESET)
    lengths = found.system_tokens, found.isl, found.osl
    return SessionLoad(1, found.turns or 1, *lengths, found.think_s)


@dataclass(frozen=True, slots=True)
class SessionChoice:
    """What a user says of sessions, beside their number and lengths; None is the preset's."""

    is_asked: bool = option(
        False,
        f"Plan sessions as `profile --preset {PRESET}` runs them: --concurrency agents at once, "
        "--isl tokens that a turn adds, --osl of an answer.",
        "--sessions",
    )
    num_turns: int | None = option(
        None, "Requests of a session.", "--turns", kind=COUNT, unset=PRESETS_OWN
    )
    system_tokens: int | None = option(
        None,
        "Tokens of system text and tools, the same for all.",
        kind=click.IntRange(0),
        unset=PRESETS_OWN,
    )
    think_s: float | None = option(
        None, "Seconds from an answer to the next prompt.", kind=FloatRange(0), unset=PRESETS_OWN
    )
    prefix_cache_gib: float | None = option(
        None,
        "GiB of host memory for kept states.",
        kind=ABOVE_0,
        unset="what the agents' sessions need",
    )

    def load(self, options: DeploymentOptions, given: Collection[str]) -> SessionLoad | None:
        """Return the sessions of one agent, None where a plain load is asked for.

        Args:
            options: whose `isl` and `osl` count if they are among the given.
            given: names of the options that the user gave.

        Raises:
            ConfigError: something is said of sessions that are not asked for.
        """
        names = [item.name for item in fields(self) if item.name != "is_asked"]
        own = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if not self.is_asked:
            if own:
                words = {"num_turns": "turns"}
                flags = ", ".join(f"--{words.get(name, name).replace('_', '-')}" for name in own)
                raise ConfigError(f"{flags}: only with --sessions.")
            return None
        own.pop("prefix_cache_gib", None)
        own |= {name: getattr(options, name) for name in ("isl", "osl") if name in given}
        return replace(agents_load(), **own)
