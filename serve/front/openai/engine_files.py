"""What the front reads from an engine directory: its tokenizer, chat template and limits."""

from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from nemotrt.engines.artefact.manifest import read_manifest
from nemotrt.engines.runtime.engine import Limits
from nemotrt.engines.text.chat.template import ChatTemplate, load_chat_template
from nemotrt.engines.text.tokenizer import Tokenizer, load_tokenizer
from nemotrt.errors import ConfigError
from nemotrt.serve.front.http.api_error import ApiError
from nemotrt.serve.requests.limits import check_head, check_text, refusal_code


@dataclass(frozen=True)
class EngineFiles:
    """Text to ids and back; never the weights."""

    tokenizer: Tokenizer | None
    template: ChatTemplate | None
    limits: Limits
    folder: Path | None = None
    digest: str | None = None  # of the engine, as its manifest tells it
    hub_id: str | None = None  # of the checkpoint, where that is known

    def __reduce__(self) -> tuple[Any, ...]:
        """Pass to another process as the folder's name: each process reads it once."""
        if self.folder is None:
            raise TypeError("these engine files are of no folder; they stay in their process.")
        return read_engine_files, (self.folder,)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return a text's tokens.

        Raises:
            ApiError: the engine has no tokenizer, or the text is far longer than it holds.
        """
        if self.tokenizer is None:
            raise ApiError(400, "the engine has no tokenizer.")
        encode = partial(self.tokenizer.encode, add_special_tokens=add_special_tokens)
        try:
            check_text("the text", len(text), self.limits.max_seq_len)
            check_head(text, self.limits.max_seq_len, encode)
        except ConfigError as error:
            raise ApiError(400, error.message, code=refusal_code(error)) from error
        return encode(text)

    @property
    def fingerprint_field(self) -> dict[str, str]:
        """OpenAI's `system_fingerprint`: what else than a request its answer depends on."""
        return {} if self.digest is None else {"system_fingerprint": self.digest}

    @cached_property
    def names(self) -> dict[int, str]:
        """Names of single ids, as far as they have been asked for."""
        return {}

    def token_name(self, token: int) -> str:
        """Return what a token is called: its text, its bytes if it is no text, or its id.

        The form `bytes:` with hexadecimal escapes is OpenAI's.
        """
        name = self.names.get(token)
        if name is None:
            name = self.names[token] = _name(token, self.token_bytes(token))
        return name

    def token_bytes(self, token: int) -> bytes | None:
        """Return what a token stands for, None where no vocabulary has it."""
        return None if self.tokenizer is None else self.tokenizer.token_bytes(token)


def _name(token: int, own: bytes | None) -> str:
    """Return the name of a token with these bytes."""
    if own is None:
        return f"token_id:{token}"
    try:
        return own.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in own)


@cache
def read_engine_files(folder: Path) -> EngineFiles:
    """Return what the front needs of the engine directory `folder`."""
    manifest = read_manifest(folder)
    origin = manifest.checkpoint.origin
    return EngineFiles(
        load_tokenizer(folder),
        load_chat_template(folder),
        manifest.engine_limits,
        folder,
        digest=manifest.digest,
        hub_id=None if origin is None else origin.repository,
    )
