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

    def buffers(self, num_layers: int) -> int:
        """Return how many layers' states are allocated, each for every sequence."""
        match self:
            case StateLayout.IN_PLACE:
                return num_layers
            case StateLayout.ROTATING:
                return num_layers + 1 if num_layers else 0
            case StateLayout.TWO_SIDES:
                return 2 * num_layers

    def scratch_rows(self, max_batch_size: int, chunk_tokens: int) -> int:
        """Return for how many sequences a prompt call writes all layers' states apart."""
        is_apart = self is StateLayout.ROTATING
        return prefill_batch(max_batch_size, chunk_tokens) if is_apart else 0
