"""What our own GPU runtime allocates for states and prompt calls; the planner reads it too."""

from enum import StrEnum

# Tokens of one prefill call, all sequences together, unless one chunk has more: the scan's matrices
# are [batch, heads, chunk, chunk] in float32, 0.5 GiB each for four chunks of 512 tokens of the 9B.
PREFILL_TOKENS = 512
PREFILL_BATCH = 4  # sequences whose prompt chunks one call may take, at most


def prefill_batch(max_batch_size: int, chunk_tokens: int) -> int:
    """Return how many sequences' chunks one call of the prefill profile takes."""
    fitting = max(PREFILL_TOKENS // chunk_tokens, 1)
    return min(max_batch_size, PREFILL_BATCH, fitting)


class StateLayout(StrEnum):
    """Where a step writes SSM states and convolution windows."""

    IN_PLACE = "in place"  # over what it reads
    ROTATING = "one spare that rotates"  # where the layer before has finished reading
    TWO_SIDES = "two sides"  # into a second copy of all of them

    def period(self, num_layers: int) -> int:
        """Return after how many steps the layers' states lie where they lay."""
        match self:
            case StateLayout.IN_PLACE:
                return 1
            case StateLayout.ROTATING:
                return num_layers + 1
            case StateLayout.TWO_SIDES:
                return 2

    def buffers(self, num_layers: int) -> int:
        """Return how many layers' states are allocated, each for every sequence."""
        if self is StateLayout.ROTATING:
            return num_layers + 1 if num_layers else 0
        return num_layers * self.period(num_layers)

    def buffer(self, layer: int, num_layers: int, phase: int) -> int:
        """Return in which buffer a layer's state lies after `phase` steps.

        A step writes the buffer of the next phase. Where one spare rotates, that is the one which
        the layer before has read: layer 0's is the spare.
        """
        if self is StateLayout.ROTATING:
            return (layer - phase) % (num_layers + 1)
        period = self.period(num_layers)
        return layer * period + phase % period

    def scratch_rows(self, max_batch_size: int, chunk_tokens: int) -> int:
        """Return for how many sequences a prompt call writes all layers' states apart."""
        is_apart = self is StateLayout.ROTATING
        return prefill_batch(max_batch_size, chunk_tokens) if is_apart else 0
