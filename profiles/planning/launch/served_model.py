"""Where an engine finds a plan's model, and in which format that chats."""

import json
from dataclasses import dataclass
from pathlib import Path

from nemotrt.engines.checkpoint.hub.hub_id import MAIN, parse_hub_id
from nemotrt.engines.model.families import (
    NEMOTRON_3,
    NEMOTRON_NANO_2,
    QWEN3,
    ChatFormat,
    family_of,
)
from nemotrt.engines.text.tokenizer_config import read_tokenizer_config, template_sources
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.errors import ConfigError
from nemotrt.profiles.planning.launch.table import Case
from nemotrt.profiles.planning.sources.known_models import MODEL_FOLDER, known_models

FAMILIES: dict[Case, ChatFormat] = {
    Case.NEMOTRON_NANO_2: NEMOTRON_NANO_2,
    Case.QWEN3: QWEN3,
    Case.NEMOTRON_3: NEMOTRON_3,
}
# Parts of a repository's name, where no chat template is at hand; the first that fits.
NAMES = {
    "nemotron-3": Case.NEMOTRON_3,
    "nemotron-nano": Case.NEMOTRON_NANO_2,
    "qwen3-coder": Case.OTHER_CHAT,
    "qwen3-vl": Case.OTHER_CHAT,
    "qwen3": Case.QWEN3,
}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A checkpoint in the words of an engine, and how it chats."""

    path: str  # a folder, or a repository on the hub
    name: str  # for files and requests
    chat: Case
    is_on_hub: bool


def served_model(name: str) -> ServedModel:
    """Return the checkpoint that a plan's MODEL stands for.

    Raises:
        ConfigError: it is a shape without a checkpoint, or a revision that engines take apart.
        ArtefactError: a chat template is damaged.
    """
    if name in known_models():
        raw = json.loads((MODEL_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        if "hub" not in raw:
            raise ConfigError(
                f"--launch needs a checkpoint, and {name} names a shape alone; give its folder or "
                "OWNER/NAME on the hub as MODEL."
            )
        return _on_hub(raw["hub"])
    path = TINY_MODELS.get(name, Path(name))
    if path.is_file() and path.name == "config.json":
        path = path.parent
    if path.is_dir():
        templates = template_sources(path, read_tokenizer_config(path)).values()
        folder = path.resolve().name
        chat = _chat(family_of(templates)) if templates else _named(folder)
        return ServedModel(str(path), folder, chat, False)
    found = parse_hub_id(name.removeprefix("hf:"))
    if found is None:
        raise ConfigError(
            f"--launch needs a checkpoint, and {name} is none: give a folder or OWNER/NAME."
        )
    if found.revision != MAIN:
        raise ConfigError(
            f"--launch: engines take the revision of {found} each in its own way; download that "
            "revision, and give the folder."
        )
    return _on_hub(found.repository)


def _on_hub(repository: str) -> ServedModel:
    name = repository.rpartition("/")[2]
    return ServedModel(repository, name, _named(name), True)


def _named(name: str) -> Case:
    return next((case for part, case in NAMES.items() if part in name.lower()), Case.OTHER_CHAT)


def _chat(chat: ChatFormat) -> Case:
    return next(case for case, known in FAMILIES.items() if known is chat)
