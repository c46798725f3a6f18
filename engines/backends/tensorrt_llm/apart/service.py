"""Answers our side's frames: one LLM, its requests, and what they gain.

Down: {"op": "hello", "version", "compute_capability"}, then, after our "start", {"op": "ready"} or
{"op": "refused", "error"}; then {"op": "gained", "items": [...]}, and {"op": "rows", "id", "start",
"num_rows", "vocab_size", "num_bytes"} with float32 behind it, before the tokens of its request.
Up: "start", "submit", "abort" and "stop".
"""

import contextlib
import importlib
import math
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from nemotrt.engines.backends.tensorrt_llm.apart.token_streams import News, TokenStreams
from nemotrt.wire.frames import Frame, FrameTooLargeError, encode, read_frame

MAX_ROWS_BYTES = 16 << 20  # of one frame of logits
Send = Callable[..., None]


def serve(descriptor: int) -> None:
    """Serve the peer of a socket until it says "stop" or closes."""
    os.set_inheritable(descriptor, False)  # else it outlives us in MPI's workers
    connection = socket.socket(fileno=descriptor)
    stream = connection.makefile("rb")

    def send(frame: Frame, data: bytes = b"") -> None:
        connection.sendall(encode(frame) + data)

    try:
        package = importlib.import_module("tensorrt_llm")
    except (ImportError, OSError) as error:  # OSError: a CUDA library that it loads is missing
        send({"op": "refused", "error": f"tensorrt_llm can't be imported: {error}"})
        return
    send(
        {
            "op": "hello",
            "version": str(getattr(package, "__version__", "")),
            "compute_capability": _compute_capability(),
        }
    )
    start = read_frame(stream)
    if start is None:
        return  # our side refuses this version
    try:
        llm = package.LLM(start[0]["model"], skip_tokenizer_init=True, **start[0]["args"])
    except Exception as error:
        send({"op": "refused", "error": f"{error}" or repr(error)})
        return
    streams = TokenStreams(llm)
    sender = threading.Thread(target=_send_news, args=(streams, send), daemon=True)
    sender.start()
    send({"op": "ready"})
    kinds = package.SamplingParams, _lora_request(start[0]["args"])
    _obey(stream, streams, *kinds, start[0]["vocab_size"])
    streams.close()
    sender.join()
    llm.shutdown()


def _lora_request(args: Frame) -> Any:
    """Return the class of a request's adapter, None where the LLM has no room for adapters."""
    if args.get("lora_config") is None:
        return None
    return importlib.import_module("tensorrt_llm.executor.request").LoRARequest


def _obey(stream: Any, streams: TokenStreams, params: Any, lora: Any, vocab_size: int) -> None:
    """Start and abort requests until our side says "stop" or is gone."""
    while (found := read_frame(stream)) is not None:
        frame = found[0]
        if frame["op"] == "submit":
            fields = partial(make_params, params, frame["params"], vocab_size)
            more = {"lora_request": partial(lora, *frame["adapter"])} if frame["adapter"] else {}
            if frame["salt"]:
                more["cache_salt"] = partial(str, frame["salt"])
            streams.start(frame["id"], frame["prompt"], fields, more)
        elif frame["op"] == "abort":
            streams.abort(frame["id"])
        else:
            return


def make_params(params: Any, fields: dict[str, Any], vocab_size: int) -> Any:
    """Return a SamplingParams; `embedding_bias` becomes a float32 tensor [vocab].

    Raises:
        ValueError: this version does not take one of the fields.
    """
    pairs = fields.pop("embedding_bias", None)
    if pairs is not None:
        import torch  # type: ignore[import-not-found, unused-ignore]

        bias = torch.zeros(vocab_size, dtype=torch.float32)
        for token, value in pairs:
            bias[token] = value
        fields["embedding_bias"] = bias
    try:
        return params(**fields)
    except TypeError as error:
        raise ValueError(f"{error}") from error


def _send_news(streams: TokenStreams, send: Send) -> None:
    """Pass on what requests gain until the streams are closed, or our side is gone."""
    with contextlib.suppress(OSError):
        while batch := streams.take():
            items: list[Frame] = []
            for news in batch:
                if news.context_logits is not None:
                    _send_rows(news, send)
                items.append(_item(news))
            try:
                send({"op": "gained", "items": items})
            except FrameTooLargeError as error:
                for item in items:
                    send({"op": "gained", "items": [_fault(item["id"], "request", error)]})


def _send_rows(news: News, send: Send) -> None:
    """Send the logits of a prompt, piece by piece."""
    logits = news.context_logits
    num_rows, vocab_size = (int(size) for size in logits.shape)
    size = max(1, MAX_ROWS_BYTES // (4 * vocab_size))
    for start in range(0, num_rows, size):
        data = logits[start : start + size].float().cpu().contiguous().numpy().tobytes()
        frame = {"op": "rows", "id": news.number, "start": start, "num_bytes": len(data)}
        send({**frame, "num_rows": num_rows, "vocab_size": vocab_size}, data)


def _item(news: News) -> Frame:
    """Return one response as plain values."""
    if news.fault is not None:
        # Its own faults say that a request is wrong; any other is the LLM's, and fatal.
        fault = news.fault
        is_own = isinstance(fault, ValueError) or type(fault).__name__ == "RequestError"
        return _fault(news.number, "request" if is_own else "fatal", fault)
    item: Frame = {"id": news.number, "ids": [int(token) for token in news.ids]}
    if news.logprobs:
        item["logprobs"] = [_logprobs(found) for found in news.logprobs]
    if news.finish_reason is not None:
        item["finish_reason"] = str(news.finish_reason)
    if news.cached_tokens is not None:
        item["cached_tokens"] = int(news.cached_tokens)
    return item


def _fault(number: int, kind: str, fault: BaseException) -> Frame:
    return {"id": number, "fault": {"kind": kind, "message": f"{fault}" or repr(fault)}}


def _logprobs(found: Any) -> Any:
    """Return a token's log-probabilities: pairs of id and number, or the token's own alone."""
    if found is None or isinstance(found, float):
        return found if found is None else _number(found)
    return [[int(token), _number(entry.logprob)] for token, entry in found.items()]


def _number(value: float) -> float | str:
    """Return a number; "nan" for what JSON has none for."""
    return float(value) if math.isfinite(value) else "nan"


def _compute_capability() -> str | None:
    """Return the first GPU's, as torch sees it; None where it sees none."""
    with contextlib.suppress(ImportError):
        import torch  # type: ignore[import-not-found, unused-ignore]

        if torch.cuda.is_available():
            major, minor = torch.cuda.get_device_capability(0)
            return f"{major}.{minor}"
    return None
