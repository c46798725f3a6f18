"""`nemotrt quantize --list-recipes`: what the built-in recipes do."""

import textwrap
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from nemotrt.quantize.recipes.recipe import RECIPE_FOLDER, Leaves, Recipe, load_recipe, recipe_names

Command = TypeVar("Command", bound=Callable[..., Any])


def recipes_option() -> Callable[[Command], Command]:
    """Return the decorator that adds --list-recipes to a command: print them and stop."""
    return click.option(
        "--list-recipes",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_recipes,
        help="Describe the built-in recipes and exit.",
    )


def _print_recipes(ctx: click.Context, parameter: click.Parameter, is_asked: bool) -> None:
    if not is_asked or ctx.resilient_parsing:
        return
    for name in recipe_names():
        for line in _lines(load_recipe(name)):
            click.echo(line)
    ctx.exit()


def _lines(recipe: Recipe) -> Iterator[str]:
    """Yield the recipe in a few lines."""
    needs = "a calibration" if recipe.precision.has_input_scale else "no calibration"
    capability = f"compute capability {recipe.min_compute_capability:g} or later"
    yield f"{recipe.name}: {recipe.algo}, {capability}, {needs}"
    yield from textwrap.wrap(recipe.description, 96, initial_indent="  ", subsequent_indent="  ")
    for verb, leaves in (("quantizes", recipe.quantize), ("keeps", recipe.keep)):
        yield from _leaf_lines(verb, leaves)
    yield f"  {RECIPE_FOLDER / recipe.name}.yaml"
    yield ""


def _leaf_lines(verb: str, leaves: Leaves) -> Iterator[str]:
    for model_type, kinds in leaves.items():
        what = "; ".join(f"{kind} {' '.join(names)}" for kind, names in kinds.items())
        yield f"  {model_type} {verb} {what}"
