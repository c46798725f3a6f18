"""What is on the disk of a checkpoint that was written."""

from pathlib import Path

import pytest

from nemotrt.errors import EnvironmentUnfitError
from nemotrt.quantize.conversion.options import QuantizeOptions
from nemotrt.quantize.recipes.recipe import Recipe, load_recipe
from nemotrt.quantize.writing import partial
from nemotrt.quantize.writing.writer import quantize_checkpoint

INT8 = load_recipe("int8-wo")
FP8_DYNAMIC = load_recipe("fp8-dynamic")


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def leftovers(target: Path) -> list[str]:
    return [path.name for path in target.parent.iterdir() if target.name in path.name]


def interrupt(
    source: Path, target: Path, recipe: Recipe = INT8, options: QuantizeOptions | None = None
) -> Path:
    """Run until two shards are written, then fail as a full disk does; return what is left."""
    finished = partial.Partial.mark_finished

    def failing(self: partial.Partial, shard: str) -> None:
        finished(self, shard)
        if len(self.finished) == 2:
            raise OSError(28, "No space left on device")

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(EnvironmentUnfitError, match="--resume"),
    ):
        patch.setattr(partial.Partial, "mark_finished", failing)
        quantize_checkpoint(source, target, recipe, options or QuantizeOptions())
    assert not target.exists()
    return target.parent / f".{target.name}.quantizing"
