"""The trained tiny models that the package ships, by name."""

from pathlib import Path

from nemotrt.errors import ConfigError

FOLDER = Path(__file__).parent
TINY_MODELS = {"tiny": FOLDER / "nemotron_h", "tiny-dense": FOLDER / "qwen3"}


def resolve_checkpoint(name: str) -> Path:
    """Return the checkpoint folder that `name` means: a path, or a shipped tiny model's name.

    Raises:
        ConfigError: there is no such folder or name.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if name in TINY_MODELS:
        return TINY_MODELS[name]
    raise ConfigError(
        f"checkpoint {name!r} is not a folder; give a Hugging Face folder, "
        f"or a built-in model: {', '.join(TINY_MODELS)}."
    )
