"""A number as people write it: few figures, SI prefixes from ten thousand on, no noise."""

import math
from decimal import Context, Decimal

PREFIXES = ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k"))
# Below the first and from the second on, a power of ten says more than zeros.
SMALLEST, LARGEST, FIRST_PREFIXED = Decimal("1e-4"), Decimal("1e18"), 10_000
EXACT = 15  # figures that every float holds


def number(value: float | None, digits: int = 4) -> str:
    """Return 9999.96 as "10k", 0.1 + 0.2 as "0.3", 0.00005 as "5e-5", None as "-"."""
    if value is None or not math.isfinite(value):
        return "-" if value is None else str(float(value))
    rounded = Context(prec=digits).create_decimal(Decimal(float(value)))
    size, suffix = abs(rounded), ""
    if size and not SMALLEST <= size < LARGEST:
        rounded, suffix = rounded.scaleb(-rounded.adjusted()), f"e{rounded.adjusted()}"
    elif size >= FIRST_PREFIXED:
        power, suffix = next(each for each in PREFIXES if size >= Decimal(10) ** each[0])
        rounded = rounded.scaleb(-power)
    return f"{rounded.normalize() + 0:f}{suffix}"


def between(*values: float) -> str:
    """Return the least and the greatest as "3 to 5", or one number where both read the same."""
    return " to ".join(dict.fromkeys(map(number, (min(values), max(values)))))
