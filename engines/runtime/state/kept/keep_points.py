"""After which of its tokens a prompt's state is kept: where a later prompt is likely to part."""

from collections.abc import Collection, Sequence

# A state that spares fewer tokens than this is not worth its bytes.
MIN_GAIN = 16
# Tokens of a long document between states: it may come again with other text behind.
PERIOD = 4096
# A chat's last role marker stands a few tokens before the prompt's end; else the end counts too.
MAX_OPENING = 256


def keep_points(
    prompt: Sequence[int], markers: Collection[int], start: int, forks: Collection[int] = ()
) -> list[int]:
    """Return how many tokens a prompt has where its state is to be kept, in order.

    They are: the last role marker, since a chat's next turn keeps all before it and may write what
    follows another way; the second one, where system text and tools end; without markers, or far
    behind the last, the prompt's end but for the token that is always fed; every `PERIOD` tokens;
    and `forks`, where other prompts part from this one.

    Args:
        prompt: the ids.
        markers: ids that begin a message of a chat.
        start: tokens whose state the prompt began with.
        forks: points that others need.
    """
    most = len(prompt) - 1
    at = [index + 1 for index, token in enumerate(prompt) if token in markers]
    wanted = {*at[1:2], *at[-1:], *range(PERIOD, most, PERIOD)}
    if not at or most - at[-1] > MAX_OPENING:
        wanted.add(most)
    points: list[int] = []
    last = start
    for point in sorted(wanted):
        if point <= most and point - last >= MIN_GAIN:
            points.append(point)
            last = point
    return sorted({*points, *(fork for fork in forks if start < fork <= most)})
