"""What tokenizer_config.json and the files beside it say: special tokens and chat templates."""

import shutil
from pathlib import Path
from typing import Any

from nemotrt.engines.model.config_fields import Fields
from nemotrt.errors import ArtefactError
from nemotrt.files.text_file import json_object_if_there

TEMPLATE_FILE = "chat_template.jinja"
TEMPLATE_FOLDER = "additional_chat_templates"  # each NAME.jinja in it is the template NAME
DEFAULT_TEMPLATE = "default"
NAMED_TOKENS = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json, {} if there is none; older folders' special tokens included.

    Source: transformers 5.24, tokenization_utils_base.py: special_tokens_map.json counts where
    the configuration has no `added_tokens_decoder`.

    Raises:
        ArtefactError: a file is not a JSON object.
    """
    config = json_object_if_there(folder / "tokenizer_config.json")
    if "added_tokens_decoder" in config:
        return config
    return config | json_object_if_there(folder / "special_tokens_map.json")


def advised_sampling(folder: Path) -> dict[str, float]:
    """Return how generation_config.json would sample; nothing where it would not, or isn't there.

    Raises:
        ConfigError: a value is not positive and finite.
    """
    path = folder / "generation_config.json"
    fields = Fields(json_object_if_there(path), str(path))
    if not fields.flag("do_sample", default=False):
        return {}
    found: dict[str, float] = {
        n: fields.number(n) for n in ("temperature", "top_p") if fields.has(n)
    }
    if fields.has("top_k") and fields.raw["top_k"] != 0:  # 0 is all tokens
        found["top_k"] = fields.size("top_k")
    return found


def special_tokens(config: dict[str, Any]) -> dict[str, str]:
    """Return the texts of the special tokens by name, as chat templates see them.

    A model's own, such as `image_token`, are among them.
    """
    extra = config.get("extra_special_tokens")
    own = {name: text for name, text in config.items() if name.endswith("_token")}
    if isinstance(extra, dict):
        own |= extra
    found = {name: text for name, text in own.items() if isinstance(text, str)}
    for name in NAMED_TOKENS:
        text = special_token(config, f"{name}_token")
        if text is not None:
            found[f"{name}_token"] = text
    return found


def special_token(config: dict[str, Any], name: str) -> str | None:
    """Return the text of a named special token, None where the config has none."""
    value = config.get(name)
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def template_sources(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """Return the chat templates by name; files go before what the configuration holds.

    Raises:
        ArtefactError: a template is not UTF-8, or the configuration's list is malformed.
    """
    paths = {DEFAULT_TEMPLATE: folder / TEMPLATE_FILE} if (folder / TEMPLATE_FILE).is_file() else {}
    paths |= {path.stem: path for path in additional_templates(folder)}
    if paths:
        return {name: _text(path) for name, path in paths.items()}
    held = config.get("chat_template")
    if isinstance(held, str):
        return {DEFAULT_TEMPLATE: held}
    if not isinstance(held, list):
        return {}
    try:
        sources = {entry["name"]: entry["template"] for entry in held}
    except (TypeError, KeyError):
        sources = {"": None}
    if not all(isinstance(part, str) for item in sources.items() for part in item) or "" in sources:
        raise ArtefactError(
            f"{folder / 'tokenizer_config.json'}: chat_template must be a text or a list of "
            'objects with "name" and "template".'
        )
    return sources


def additional_templates(folder: Path) -> list[Path]:
    """Return the files of the templates beside the default one."""
    return sorted((folder / TEMPLATE_FOLDER).glob("*.jinja"))


def carry_templates(source: Path, target: Path) -> None:
    """Copy the templates beside the default one to another folder, if there are any."""
    for path in additional_templates(source):
        (target / TEMPLATE_FOLDER).mkdir(exist_ok=True)
        shutil.copyfile(path, target / TEMPLATE_FOLDER / path.name)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ArtefactError(f"{path} is not UTF-8: {error.reason} at {error.start}.") from error
