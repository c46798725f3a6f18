"""How far a Mamba state of fewer bits drifts from float64 over a long text.

Run: python benchmarks/state_drift.py [--tokens 16384] [--heads 16]

The recurrence alone, h = exp(dt A) h + dt x B and y = C h, for heads of every pace that the
family's initialization draws: A from -1 to -16, dt from 0.001 to 0.1. Inputs are random, the same
for all forms: normal numbers, or with --one-sided their magnitudes, which make states that hardly
change. As in the step, y is formed before the state is rounded. A form's error is the root mean
square of its y's difference from float64's over that of y, of the last 256 tokens up to each mark.

Forms: float32 and float16 as the engine has them (`--ssm-state`), float16 rounded at random
(up with the chance that is the part cut off), int8 codes with a scale for each row of 128,
rounded to the nearest and at random.
"""

import json
from collections.abc import Callable

import click
import numpy as np
import numpy.typing as npt

HEAD_DIM, SIZE = 16, 128  # rows of a head are alike: a part of its 80 is enough
WINDOW = 256
Array = npt.NDArray[np.floating]
Round = Callable[[Array, np.random.Generator], Array]


def nearest_half(state: Array, rng: np.random.Generator) -> Array:
    """Return half floats, ties to even."""
    return state.astype(np.float16).astype(np.float32)


def random_half(state: Array, rng: np.random.Generator) -> Array:
    """Return one of the two half floats around each value, right on average."""
    exponent = np.maximum(np.frexp(state)[1] - 11, -24)  # of a half's last place
    unit = np.ldexp(np.float32(1), exponent).astype(np.float32)
    noise = rng.random(state.shape, np.float32)
    return (np.floor(state / unit + noise) * unit).astype(np.float32)


def codes(state: Array, noise: Array | float) -> Array:
    """Return int8 codes times their row's scale."""
    scale = np.abs(state).max(-1, keepdims=True) / 127
    scale[scale == 0] = 1
    return (np.clip(np.floor(state / scale + noise), -127, 127) * scale).astype(np.float32)


def nearest_codes(state: Array, rng: np.random.Generator) -> Array:
    """Return the nearest codes."""
    return codes(state, np.float32(0.5))


def random_codes(state: Array, rng: np.random.Generator) -> Array:
    """Return one of the two codes around each value, right on average."""
    return codes(state, rng.random(state.shape, np.float32))


FORMS: dict[str, Round] = {
    "float32": lambda state, rng: state,
    "float16": nearest_half,
    "float16 at random": random_half,
    "int8": nearest_codes,
    "int8 at random": random_codes,
}


@click.command()
@click.option("--tokens", type=click.IntRange(WINDOW), default=16384, show_default=True)
@click.option("--heads", type=click.IntRange(1), default=16, show_default=True)
@click.option("--one-sided", is_flag=True, help="No input is negative.")
def main(tokens: int, heads: int, one_sided: bool) -> None:
    """Print one JSON object a line: errors of each form, at doubling marks."""
    rng, noise = np.random.default_rng(0), np.random.default_rng(1)
    rate = -np.linspace(1, 16, heads)
    usual = np.exp(np.linspace(np.log(0.001), np.log(0.1), heads))[rng.permutation(heads)]
    exact = np.zeros((heads, HEAD_DIM, SIZE))
    states = {name: exact.astype(np.float32) for name in FORMS}
    off = dict.fromkeys(FORMS, 0.0)
    total, mark = 0.0, WINDOW
    for token in range(1, tokens + 1):
        step = usual * np.exp(0.5 * rng.standard_normal(heads))
        x, b, c = (rng.standard_normal((heads, width)) for width in (HEAD_DIM, SIZE, SIZE))
        if one_sided:
            x, b, c = abs(x), abs(b), abs(c)
        decay = np.exp(step * rate)[:, None, None]
        added = (step[:, None] * x)[:, :, None] * b[:, None]
        exact = decay * exact + added
        y = np.einsum("hps,hs->hp", exact, c)
        narrow = [part.astype(np.float32) for part in (decay, added, c)]
        is_counted = mark - WINDOW < token <= mark
        total += float((y**2).sum()) if is_counted else 0.0
        for name, rounded in FORMS.items():
            state = narrow[0] * states[name] + narrow[1]
            if is_counted:
                found = np.einsum("hps,hs->hp", state, narrow[2])
                off[name] += float(((found - y) ** 2).sum())
            states[name] = rounded(state, noise)
        if token == mark:
            errors = {name: float(f"{(value / total) ** 0.5:.2e}") for name, value in off.items()}
            click.echo(json.dumps({"tokens": token, **errors}))
            off, total, mark = dict.fromkeys(FORMS, 0.0), 0.0, 2 * mark


if __name__ == "__main__":
    main()
