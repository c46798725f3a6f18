"""A server that emits tokens at known times, over the real protocols; the timings' oracle.

Speaks Triton's generate_stream and OpenAI's completions. What it does to a request is in the
request itself: `script` = {"ttft_ms", "itl_ms", "tokens_per_response", "fault", "after", "serial",
"us_per_char", "caches", "silent", "hangs_up", "mix", "chunks", "retry_after"}. Of a "mix" of faults
each request has the next one, "" for none; "chunks" are the tokens of the responses in turn. The
"silent" last tokens of an answer have no text.
With "caches" it keeps the texts of chats: a character that a prompt has in common with the start of
an earlier one is a cached token, and takes no time. With "hangs_up" it ends the connection after an
answer without having said so, as llama.cpp's server does.
GET /log tells when each response was really written, on the clock that the driver uses
(CLOCK_MONOTONIC).

Run: python scripted_server.py; prints its port.
"""

import asyncio
import contextlib
import heapq
import json
import os
import time

INPUTS = [
    {"name": name, "datatype": datatype, "shape": [1]}
    for name, datatype in (
        ("text_input", "BYTES"),
        ("max_tokens", "INT32"),
        ("min_tokens", "INT32"),
        ("stream", "BOOL"),
        ("ignore_eos", "BOOL"),
    )
]
STATUSES = {"refuse": 503, "429": 429, "500": 500, "400": 400}  # in place of an answer
FAULTS = ("die", "stall", "truncate", "short", "error", "refuse", "not-json", "wrong-input")
# Ends of an OpenAI stream that are none, and errors in the words of older servers.
FAULTS += ("no-done", "no-finish", "empty", "old-error", "no-choice")
ANSWERS = {
    "error": '{"error": "boom"}',
    "old-error": '{"object": "error", "message": "boom", "code": 500}',
    "not-json": "tok",
    "no-choice": '{"choices": [null]}',
    "empty": '{"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}\n\ndata: [DONE]',
}


def common(one, other):
    """Return how many characters two texts have in common at their starts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


class Stream:
    """One answer under way."""

    def __init__(self, transport, body, is_openai):
        self.transport, self.is_openai = transport, is_openai
        self.is_chat = "messages" in body
        prompt = body.get("text_input") or body.get("prompt")
        if self.is_chat:
            prompt = body["messages"][0]["content"]
        script = body.get("script", {})
        self.fault, self.after = script.get("fault", ""), script.get("after", 3)
        self.ttft_s = script.get("ttft_ms", 5) / 1e3
        self.itl_s = script.get("itl_ms", 2) / 1e3
        self.chunks = script.get("chunks") or [script.get("tokens_per_response", 1)]
        self.num_events = 0
        self.reports = script.get("reports", "total")
        self.is_serial = script.get("serial", False)
        self.num_cached = script.get("num_cached_tokens")
        self.num_silent = script.get("silent", 0)
        self.hangs_up = script.get("hangs_up", False)
        self.num_input = script.get("num_input_tokens")
        self.details = None
        self.osl = body.get("max_tokens", 1)
        self.num_sent = 0
        self.log = {
            "tag": prompt[:12],
            "inputs": sorted(body),
            "start_s": time.perf_counter(),
            "sends_s": [],
        }

    def event(self):
        """Return the next event's JSON, and whether it is the last."""
        count = min(self.chunks[self.num_events % len(self.chunks)], self.osl - self.num_sent)
        self.num_events += 1
        text = " a" * count  # one token each, to the tiny models' tokenizer
        if self.num_silent and self.num_sent >= self.osl - self.num_silent:
            text, count = "", self.osl - self.num_sent
        self.num_sent += count
        is_last = self.num_sent >= self.osl or (
            self.fault == "short" and self.num_sent > self.after
        )
        if self.is_openai:
            has_reason = is_last and self.fault != "no-finish"
            choice = {"index": 0, "finish_reason": "length" if has_reason else None}
            choice |= {"delta": {"content": text}} if self.is_chat else {"text": text}
            kind = "chat.completion.chunk" if self.is_chat else "text_completion"
            event = {"object": kind, "choices": [choice], "usage": None}
            if self.reports == "each":
                event["usage"] = self.usage()
            return event, is_last
        event = {"model_name": "llm", "model_version": "1", "text_output": text}
        if self.reports == "total":
            event["num_output_tokens"] = self.num_sent
        elif self.reports == "each":
            event["num_output_tokens"] = count
        if self.num_cached is not None and self.num_sent == count:
            event["num_cached_tokens"] = self.num_cached
        if is_last:
            event["finish_reason"] = "length"
            if self.num_input is not None:
                event["num_input_tokens"] = self.num_input
            if self.reports == "last":
                event["num_output_tokens"] = self.num_sent
        return event, is_last

    def usage(self):
        told = {"prompt_tokens": self.num_input, "completion_tokens": self.num_sent}
        return told if self.details is None else told | {"prompt_tokens_details": self.details}

    def read(self, body, texts):
        """Count a chat's characters as tokens, and those that an earlier text began with."""
        text = json.dumps([body.get("tools"), body["messages"]])[:-2]
        cached = max((common(text, known) for known in texts), default=0)
        self.num_input, self.details = len(text), {"cached_tokens": cached}
        self.log |= {"tools": body.get("tools"), "messages": body["messages"]}
        self.log |= {"read": len(text), "cached": cached}
        texts.append(text)
        return len(text) - cached


class Http(asyncio.Protocol):
    """HTTP/1.1, keep-alive, chunked answers."""

    server = None

    def connection_made(self, transport):
        self.transport, self.rest = transport, b""
        self.stream = None

    def data_received(self, data):
        self.rest += data
        while b"\r\n\r\n" in self.rest:
            head, _, rest = self.rest.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = {n.lower(): v.strip() for n, _, v in (x.partition(":") for x in lines[1:])}
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return
            body, self.rest = rest[:length], rest[length:]
            method, path, _ = lines[0].split(" ")
            self.server.handle(self, method, path, body)

    def connection_lost(self, error):
        if self.stream is not None:
            self.server.num_cancelled += 1
            self.stream.transport = None

    def answer(self, status, value, more=""):
        body = json.dumps(value).encode()
        self.transport.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{more}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )


class ScriptedServer:
    """Writes each response when it is due; one heap for all streams."""

    def __init__(self):
        self.due, self.count, self.logs = [], 0, []
        self.num_cancelled, self.texts = 0, []
        self.num_started = 0
        self.free_s = 0.0
        self.wake = asyncio.Event()

    def handle(self, http, method, path, body):
        if path == "/log":
            http.answer(200, {"requests": self.logs, "num_cancelled": self.num_cancelled})
        elif path == "/v2/models/llm/ready":
            http.answer(200, {})
        elif path == "/v2/models/llm":
            http.answer(200, {"name": "llm", "inputs": INPUTS})
        elif path == "/v1/models":
            http.answer(200, {"data": [{"id": "llm"}]})
        elif method == "POST" and path in (
            "/v2/models/llm/generate_stream",
            "/v1/completions",
            "/v1/chat/completions",
        ):
            self.start(http, json.loads(body), path.startswith("/v1"))
        else:
            http.answer(404, {"error": f"no {path}"})

    def start(self, http, body, is_openai):
        stream = Stream(http.transport, body, is_openai)
        script = body.get("script", {})
        if mix := script.get("mix"):
            stream.fault = mix[self.num_started % len(mix)]
            self.num_started += 1
        if stream.fault in STATUSES:
            later = script.get("retry_after")
            more = "" if later is None else f"Retry-After: {later}\r\n"
            http.answer(STATUSES[stream.fault], {"error": "Exceeds maximum queue size"}, more)
            return
        if stream.fault == "disconnect":  # in its answer: before it, it would be asked again
            http.transport.write(b"HTTP/1.1 200 OK\r\n")
            http.transport.close()
            return
        self.logs.append(stream.log)
        http.stream = stream
        stream.http = http
        stream.options = body.get("stream_options") or {}
        http.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        start_s = stream.log["start_s"]
        if script.get("caches"):
            stream.ttft_s += stream.read(body, self.texts) * script.get("us_per_char", 0) / 1e6
        if stream.is_serial:  # one answer at a time
            start_s = max(start_s, self.free_s)
            self.free_s = start_s + stream.ttft_s + (stream.osl - 1) * stream.itl_s
        self.schedule(stream, start_s + stream.ttft_s)

    def schedule(self, stream, due_s):
        self.count += 1
        heapq.heappush(self.due, (due_s, self.count, stream))
        self.wake.set()

    async def run(self):
        while True:
            while not self.due:
                self.wake.clear()
                await self.wake.wait()
            wait_s = self.due[0][0] - time.perf_counter()
            if wait_s > 0:
                self.wake.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.wake.wait(), wait_s)
                continue
            due_s, _, stream = heapq.heappop(self.due)
            if stream.transport is not None:
                self.emit(stream, due_s)
            await asyncio.sleep(0) if self.count % 16 == 0 else None

    def emit(self, stream, due_s):
        at_fault = stream.num_sent >= stream.after
        if at_fault and stream.fault == "die":
            os._exit(7)
        if at_fault and stream.fault == "stall":
            return
        if at_fault and stream.fault == "truncate":
            stream.transport.write(b'1f\r\ndata: {"text_ou')
            stream.transport.close()
            return
        if at_fault and stream.fault in ANSWERS:
            self.write(stream, f"data: {ANSWERS[stream.fault]}\n\n", True)
            return
        event, is_last = stream.event()
        text = f"data: {json.dumps(event)}\n\n"
        if is_last and stream.is_openai:
            if stream.options.get("include_usage"):
                usage = {"object": event["object"], "choices": [], "usage": stream.usage()}
                text += f"data: {json.dumps(usage)}\n\n"
            text += "" if stream.fault == "no-done" else "data: [DONE]\n\n"
        stream.log["sends_s"].append(time.perf_counter())
        self.write(stream, text, is_last)
        if not is_last:
            self.schedule(stream, due_s + stream.itl_s)

    def write(self, stream, text, is_last):
        body = text.encode()
        end = b"0\r\n\r\n" if is_last else b""
        if is_last:
            stream.http.stream = None
        stream.transport.write(b"%x\r\n%b\r\n%b" % (len(body), body, end))
        if is_last and stream.hangs_up:
            stream.transport.close()


async def main():
    Http.server = server = ScriptedServer()
    listener = await asyncio.get_running_loop().create_server(Http, "127.0.0.1", 0, backlog=512)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await server.run()


if __name__ == "__main__":
    asyncio.run(main())
