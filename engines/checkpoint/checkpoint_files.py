"""Which files of a checkpoint's folder anything may read: what moves when the checkpoint moves."""

from pathlib import Path

from nemotrt.engines.checkpoint.checkpoint import shard_paths
from nemotrt.engines.text.tokenizer_config import additional_templates

# Configuration, index, tokenizer of any kind, chat templates.
SUFFIXES = (".json", ".jinja", ".model", ".tiktoken", ".txt")
CODE = ".py"


def checkpoint_files(path: Path, *, has_code: bool = False) -> list[Path]:
    """Return the files of the checkpoint folder `path`, the shards first.

    Its own Python code is among them only where it is trusted.

    Raises:
        ArtefactError: a shard is missing.
    """
    wanted = (*SUFFIXES, CODE) if has_code else SUFFIXES
    beside = [*path.iterdir(), *additional_templates(path)]
    return [*shard_paths(path), *sorted(f for f in beside if f.suffix in wanted and f.is_file())]
