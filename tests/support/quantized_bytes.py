"""What is on the disk of a checkpoint that was written."""

from pathlib import Path

from nemotrt.quantize.recipes.recipe import load_recipe

INT8 = load_recipe("int8-wo")
FP8_DYNAMIC = load_recipe("fp8-dynamic")


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def leftovers(target: Path) -> list[str]:
    return [path.name for path in target.parent.iterdir() if target.name in path.name]
