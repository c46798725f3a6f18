"""Log-probabilities in the forms of the two endpoints."""

from typing import Any

from nemotrt.serve.front.engine_files import EngineFiles
from nemotrt.serve.front.upstream import Fields


def chat_logprobs(fields: Fields, files: EngineFiles) -> dict[str, Any] | None:
    """Return a chat choice's `logprobs` for what the fields bring, None if they bring none."""
    if "output_log_probs" not in fields:
        return None
    entries = []
    for position, (token, logprob) in enumerate(_pairs(fields)):
        top = [_entry(i, p, files) for i, p in _top(fields, position)]
        entries.append({**_entry(token, logprob, files), "top_logprobs": top})
    return {"content": entries, "refusal": None}


def completion_logprobs(fields: Fields, files: EngineFiles, offset: int) -> dict[str, Any] | None:
    """Return a completion choice's `logprobs`; `offset` is where its text begins."""
    if "output_log_probs" not in fields:
        return None
    result: dict[str, list[Any]] = {
        "tokens": [],
        "token_logprobs": [],
        "top_logprobs": [],
        "text_offset": [],
    }
    for position, (token, logprob) in enumerate(_pairs(fields)):
        text = files.token_text(token)
        result["tokens"].append(text)
        result["token_logprobs"].append(logprob)
        top = {files.token_text(i): p for i, p in _top(fields, position)}
        result["top_logprobs"].append(top)
        result["text_offset"].append(offset)
        offset += len(text)
    return result


def _pairs(fields: Fields) -> list[tuple[int, float]]:
    """Return the chosen tokens with their log-probabilities."""
    return list(zip(fields["output_ids"], fields["output_log_probs"], strict=True))


def _top(fields: Fields, position: int) -> list[tuple[int, float]]:
    """Return the likeliest tokens at a position."""
    if "top_log_prob_ids" not in fields:
        return []
    ids, log_probs = fields["top_log_prob_ids"][position], fields["top_log_probs"][position]
    return list(zip(ids, log_probs, strict=True))


def _entry(token: int, logprob: float, files: EngineFiles) -> dict[str, Any]:
    """Return one token's entry."""
    text = files.token_text(token)
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
