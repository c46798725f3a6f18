"""Clients of other versions: offers of HTTP/2 are passed over, HTTP/1.0 is sent no chunks."""

from collections.abc import Callable, Coroutine
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

FRAMING = (b"content-length", b"transfer-encoding")  # headers that say where a body ends


class RequestParser:
    """httptools' parser, which reads on where a request offers another protocol.

    httptools ends at such a head and leaves out the body. A server may ignore the offer (RFC 9110,
    7.8), which Java's HttpClient and `curl --http2` make to every server: h2c.
    """

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        """Read for a connection."""
        self._protocol = protocol
        self._framing: list[bytes] = []  # lines of the head
        self._is_repeated = False  # whether the head is ours, for the body that was left out
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        self.get_method = self._parser.get_method
        self.get_http_version = self._parser.get_http_version
        self.should_keep_alive = self._parser.should_keep_alive

    def should_upgrade(self) -> bool:
        """Return False: the protocol stays what it is."""
        return False

    def feed_data(self, data: bytes) -> None:
        """Read on; a parser goes on in place of one that has ended."""
        while data:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = data[offer.args[0] :]
            self._begin()
            if self._framing:
                self._is_repeated = True
                data = b"POST / HTTP/1.1\r\n" + b"".join(self._framing) + b"\r\n" + data

    def on_message_begin(self) -> None:
        """Begin a head."""
        if not self._is_repeated:
            self._framing.clear()
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Pass a part of the address on."""
        if not self._is_repeated:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Pass a header on."""
        if not self._is_repeated:
            if name.lower() in FRAMING:
                self._framing.append(name + b": " + value + b"\r\n")
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        """End a head."""
        if not self._is_repeated:
            self._protocol.on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on."""
        self._protocol.on_body(body)

    def on_message_complete(self) -> None:
        """End a request, unless its body was left out."""
        if self._is_repeated or not (self._framing and self._parser.should_upgrade()):
            self._is_repeated = False
            self._protocol.on_message_complete()


def unchunked(cycle: RequestResponseCycle) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Return how an answer is sent to HTTP/1.0, which has no chunks.

    One without a length ends with the connection.
    """
    send, has_length = cycle.send, True

    async def send_unchunked(message: Any) -> None:
        nonlocal has_length
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message.get("headers", ())}
            has_length = b"content-length" in names
        if not has_length:
            cycle.chunked_encoding = False
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    return send_unchunked
