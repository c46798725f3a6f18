"""What the front reads from an engine directory: its tokenizer, chat template and limits."""

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from nemotrt.engines.chat import ChatTemplate, load_chat_template
from nemotrt.engines.engine import Limits
from nemotrt.engines.manifest import read_manifest
from nemotrt.engines.tokenizer import Tokenizer, load_tokenizer


@dataclass(frozen=True)
class EngineFiles:
    """Text to ids and back; never the weights."""

    tokenizer: Tokenizer | None
    template: ChatTemplate | None
    limits: Limits
    folder: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pass to another process as the folder's name: each process reads it once."""
        if self.folder is None:
            raise TypeError("these engine files are of no folder; they stay in their process.")
        return read_engine_files, (self.folder,)

    @cached_property
    def texts(self) -> dict[int, str]:
        """Texts of single ids, as far as they have been asked for."""
        return {}

    def token_text(self, token: int) -> str:
        """Return what a token says by itself; part of a character is U+FFFD."""
        text = self.texts.get(token)
        if text is None:
            text = "" if self.tokenizer is None else self._decode(token)
            self.texts[token] = text
        return text

    def _decode(self, token: int) -> str:
        assert self.tokenizer is not None  # token_text()
        return self.tokenizer.decode([token], skip_special_tokens=False)


@cache
def read_engine_files(folder: Path) -> EngineFiles:
    """Return what the front needs of the engine directory `folder`."""
    limits = read_manifest(folder).engine_limits
    return EngineFiles(load_tokenizer(folder), load_chat_template(folder), limits, folder)
