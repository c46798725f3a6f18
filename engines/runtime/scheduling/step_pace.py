"""How much of a prompt goes beside tokens that others wait for, so that a step keeps to a target.

A step's time grows with the prompt tokens in it, by a rate that depends on the machine, the model
and what the sequences hold. So nothing is assumed of it: the number follows the times measured.
"""

from nemotrt.errors import ConfigError

FLOOR = 16  # a prompt goes on by as many, whatever a step without them takes
AIM = 0.9  # of the target: the next chunk of a prompt costs more than the last
GROWTH, SHRINKAGE = 1.5, 0.25  # at most, from one step to the next


class StepPace:
    """The prompt tokens of the next step that also decodes."""

    def __init__(self, target_s: float, most: int) -> None:
        """Start low: a neighbour's first wait is unknown.

        Args:
            target_s: what such a step should take.
            most: prompt tokens that a step may take at all.

        Raises:
            ConfigError: the target is no positive time.
        """
        if not 0 < target_s < float("inf"):
            raise ConfigError(f"the target for a step must be above 0 s, got {target_s}.")
        self._aim_s = AIM * target_s
        self._most = most
        self._tokens = float(min(FLOOR, most))

    @property
    def tokens(self) -> int:
        """Prompt tokens that the next step may take beside decodes."""
        return int(self._tokens)

    def learn(self, num_tokens: int, seconds: float) -> None:
        """Follow a step that took `num_tokens` of prompts beside decodes."""
        factor = self._aim_s / max(seconds, 1e-9)
        if factor > 1 and num_tokens < self.tokens:
            return  # the prompt was at its end: a full step may take longer
        wanted = num_tokens * min(max(factor, SHRINKAGE), GROWTH)
        self._tokens = min(max(wanted, min(FLOOR, self._most)), self._most)
