"""What a checkpoint folder holds beside weights: tokenizer, chat template, generation config."""

import json
import shutil
from pathlib import Path

from nemotrt.engines.checkpoint.checkpoint import INDEX_FILE
from nemotrt.engines.checkpoint.quantized.config import QUANT_CONFIG_FILE
from nemotrt.engines.text.tokenizer_config import carry_templates
from nemotrt.quantize.conversion.layout import Shard

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx")
WRITTEN_HERE = ("config.json", INDEX_FILE, QUANT_CONFIG_FILE)
OTHER_INDEXES = (".bin.index.json", ".h5.index.json", ".msgpack.index.json")  # of what stays behind


def carried_files(source: Path) -> list[Path]:
    """Return the files of the folder that go to the output unchanged."""
    return sorted(
        path
        for path in source.iterdir()
        if path.is_file()
        and path.suffix not in WEIGHT_SUFFIXES
        and path.name not in WRITTEN_HERE
        and not path.name.startswith(".")
        and not path.name.endswith(OTHER_INDEXES)
    )


def carry_files(source: Path, target: Path) -> None:
    """Copy what is not weights; links are followed."""
    for path in carried_files(source):
        shutil.copyfile(path, target / path.name)
    carry_templates(source, target)


def write_index(target: Path, source: Path, shards: list[Shard]) -> None:
    """Write the index, if the source has one."""
    if not (source / INDEX_FILE).is_file():
        return
    total = sum(entry.num_bytes for shard in shards for entry in shard.entries)
    names = {entry.name: shard.file_name for shard in shards for entry in shard.entries}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))}
    (target / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
