"""The colours: by role, for light and for dark pages, apart for colour-blind readers."""

from collections.abc import Iterable

# c1 to c6 are series in their order, q1 and q2 are parts of no interest.
LIGHT = {
    "bg": "#ffffff", "fg": "#1b1f24", "soft": "#5b6570", "rule": "#d9dee4", "panel": "#f5f7f9",
    "window": "#e9f2e4", "bad": "#b3261e", "q1": "#9aa7b4", "q2": "#d3dae1",
    "c1": "#1f6fb2", "c2": "#c2571a", "c3": "#7a4fa3", "c4": "#00805d", "c5": "#b5478a",
    "c6": "#7a6a00",
}  # fmt: skip
DARK = {
    "bg": "#14171b", "fg": "#e4e8ec", "soft": "#9aa5b1", "rule": "#333a42", "panel": "#1c2127",
    "window": "#20301f", "bad": "#ff8a80", "q1": "#5d6975", "q2": "#333a42",
    "c1": "#7fb0e6", "c2": "#f0a05f", "c3": "#c39bea", "c4": "#4fc79b", "c5": "#f08fc0",
    "c6": "#d8c64a",
}  # fmt: skip
SERIES = ("c1", "c2", "c3", "c4", "c5", "c6")
QUIET = ("q2", "q1")


def theme_css() -> str:
    """Return each colour as a variable, by the reader's choice of light or dark, and as a class."""
    light, dark = (
        ":root { " + " ".join(f"--{role}: {value};" for role, value in colours.items()) + " }"
        for colours in (LIGHT, DARK)
    )
    classes = "\n".join(f".{role} {{ color: var(--{role}); }}" for role in LIGHT)
    return (
        f":root {{ color-scheme: light dark; }}\n{light}\n"
        f"@media (prefers-color-scheme: dark) {{ {dark} }}\n@media print {{ {light} }}\n{classes}\n"
    )


def part_roles(names: Iterable[str], quiet: tuple[str, ...]) -> list[str]:
    """Return a colour for each part; those of no interest are grey."""
    places = {True: 0, False: 0}
    roles = []
    for name in names:
        colours = QUIET if name in quiet else SERIES
        roles.append(colours[places[name in quiet] % len(colours)])
        places[name in quiet] += 1
    return roles
