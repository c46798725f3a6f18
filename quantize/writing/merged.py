"""A checkpoint with adapters merged, written as one of its own: streamed, in constant memory."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nemotrt.engines.checkpoint.checkpoint import Checkpoint, shard_paths
from nemotrt.engines.checkpoint.stored_head import settled_json
from nemotrt.errors import ConfigError
from nemotrt.quantize.conversion.layout import Entry, make_shard
from nemotrt.quantize.conversion.plan import check_plain
from nemotrt.quantize.scales.amax import num_threads
from nemotrt.quantize.writing.carry import carry_files, write_index
from nemotrt.quantize.writing.shard import Progress, write_shard


def write_merged(
    checkpoint: Checkpoint, folder: Path, progress: Progress = lambda num_bytes: None
) -> None:
    """Write a checkpoint's files to the new `folder`, with its tensors as they are read.

    Raises:
        ArtefactError: a merged weight is not finite.
        ConfigError: its weights are stored in GGUF, or as codes.
    """
    source = checkpoint.path
    check_plain(source)
    if (folder).exists():
        raise ConfigError(f"{folder} is there already.")
    folder.mkdir()
    entries: dict[str, list[Entry]] = {}
    for name, ref in sorted(checkpoint.carried().items(), key=lambda item: item[1].offset):
        entries.setdefault(ref.path.name, []).append(Entry(name, ref.dtype, ref.shape, ref))
    shards = [make_shard(path, entries.get(path.name, [])) for path in shard_paths(source)]
    with ThreadPoolExecutor(num_threads()) as pool:
        for path, shard in zip(shard_paths(source), shards, strict=True):
            write_shard(path, folder / shard.file_name, shard, pool, progress)
    write_index(folder, source, shards)
    carry_files(source, folder)
    text = json.dumps(settled_json(source, checkpoint.config), indent=2, ensure_ascii=False)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
