"""How many examples hypothesis draws of a property, by the tier that runs."""

from hypothesis import settings


def up_to(count: int) -> int:
    """Return `count` in the thorough tier (make test-all), and the quick tier's number in that."""
    usual = settings.default.max_examples
    is_thorough = usual >= settings.get_profile("thorough").max_examples
    return count if is_thorough else min(count, usual)
