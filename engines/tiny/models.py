"""The trained tiny models that the package ships, by name."""

from pathlib import Path

FOLDER = Path(__file__).parent
TINY_MODELS = {"tiny": FOLDER / "nemotron_h", "tiny-dense": FOLDER / "qwen3"}
