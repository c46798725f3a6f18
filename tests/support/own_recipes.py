"""The recipes whose codes engines here take as they are; of others they read floats."""

from nemotrt.engines.model.numerics import BUILT
from nemotrt.quantize.recipes.recipe import load_recipe, recipe_names

OWN_RECIPES = [name for name in recipe_names() if load_recipe(name).precision in BUILT]
