"""A GGUF file as a checkpoint's folder: config and tokenizer written out, the weights linked."""

import hashlib
import json
import shutil
from pathlib import Path

from nemotrt.engines.checkpoint.gguf.config import config_of
from nemotrt.engines.checkpoint.gguf.file import SUFFIX, read_gguf
from nemotrt.engines.checkpoint.gguf.tokenizer import tokenizer_files
from nemotrt.engines.text.tokenizer import TOKENIZER_FILES
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.files.user_cache import user_cache
from nemotrt.files.writing import writing_folder

FOLDER = "gguf"
NO_VOCABULARY = "none"
FORM = "1"  # of what is written; another number, other folders


def lone_gguf(folder: Path) -> Path | None:
    """Return the GGUF file of a folder that has no other weights; None without one.

    Raises:
        ConfigError: there are several.
    """
    if any(folder.glob("*.safetensors")) or not folder.is_dir():
        return None
    found = sorted(folder.glob(f"*{SUFFIX}"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found[:4])
        raise ConfigError(
            f"{folder} has {len(found)} GGUF files ({names}); give the one that you mean. A model "
            "in parts is joined by llama-gguf-split --merge."
        )
    return found[0] if found else None


def gguf_folder(path: Path) -> Path:
    """Return a checkpoint folder for the GGUF file `path`, in the user's cache.

    Tokenizer files beside it hold; what they lack comes from the file's metadata.

    Raises:
        ArtefactError: the file is damaged.
        ConfigError: its architecture or vocabulary is not read.
    """
    file, source = read_gguf(path), path.resolve()
    beside = {name: source.parent / name for name in TOKENIZER_FILES}
    given = {name: own for name, own in beside.items() if own.is_file()}
    status = [source, *given.values()]
    marks = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in status]
    key = hashlib.sha256(f"{FORM} {marks}".encode()).hexdigest()[:12]
    target = user_cache() / FOLDER / f"{source.stem}-{key}"
    if target.is_dir():
        return target
    texts = {"config.json": json.dumps(config_of(file), indent=2)}
    kind = file.metadata.get("tokenizer.ggml.model", NO_VOCABULARY)
    if "tokenizer.json" not in given and kind != NO_VOCABULARY:
        texts |= tokenizer_files(file)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with writing_folder(target) as folder:
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8")
            for name, own in given.items():
                shutil.copyfile(own, folder / name)
            (folder / source.name).symlink_to(source)
    except ConfigError:
        if not target.is_dir():  # another process was faster
            raise
    except OSError as error:
        raise ArtefactError(f"{target} can't be written: {error.strerror}.") from error
    return target
