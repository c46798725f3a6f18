"""Sends responses from a few threads; each send takes all that has come since the last one.

A send is a synchronous hop to the server's process (130 to 180 us alone, more under load; measured
on a 2-core machine with Triton 2.51), so the engine's step must never wait for it, and under load
a response carries several tokens instead of one.
"""

import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from nemotrt.wire.faults import print_place
from nemotrt.wire.tensors import merge

NUM_SENDERS = 3  # measured: more threads do not send faster on Triton 2.51
POLL_S = 0.02  # at least between two looks at whether a client has gone
POLL_COST_S = 0.01  # time for one look, of which a hundredth is its price: bounds the CPU share
Fields = dict[str, Any]


class Channel:
    """One request's way back to its client."""

    def __init__(self, sender: Any, respond: Callable[[Any, Fields], None], ready: Any) -> None:
        """Wrap Triton's response sender; `respond` builds and sends one response."""
        self.sender = sender
        self.respond = respond
        self.request_id = 0  # the relay's id, once there is one
        self.is_done = False
        self.is_cancel_asked = False
        self._ready = ready
        self._lock = threading.Lock()  # guards the fields below
        self._send_lock = threading.Lock()  # Triton's sender takes one call at a time
        self._fields: Fields = {}
        self._is_queued = False

    def push(self, fields: Fields) -> None:
        """Add what the engine produced; never blocks on the server."""
        with self._lock:
            merge(self._fields, fields)
            if not self._is_queued:
                self._is_queued = True
                self._ready.put(self)

    def drain(self) -> None:
        """Send everything that has come."""
        with self._lock:
            fields, self._fields = self._fields, {}
        with self._send_lock:
            self.is_done = bool(fields.get("final"))
            self.respond(self.sender, fields)
        with self._lock:
            if self._fields:
                self._ready.put(self)
            else:
                self._is_queued = False

    def is_cancelled(self) -> bool:
        """Whether the client has gone; a hop to the server's process (40 to 215 us)."""
        with self._send_lock:
            return not self.is_done and bool(self.sender.is_cancelled())


class Responder:
    """The sender threads and the one that looks for clients who have gone."""

    def __init__(
        self, respond: Callable[[Any, Fields], None], cancel: Callable[[int], None]
    ) -> None:
        """Start the threads."""
        self._respond = respond
        self._cancel = cancel
        self._ready: queue.SimpleQueue[Channel | None] = queue.SimpleQueue()
        self._live: dict[int, Channel] = {}
        self._is_closed = False
        targets = [self._send_loop] * NUM_SENDERS + [self._watch_loop]
        self._threads = [threading.Thread(target=target, daemon=True) for target in targets]
        for thread in self._threads:
            thread.start()

    def open(self, sender: Any) -> Channel:
        """Return the channel of a new request."""
        return Channel(sender, self._respond, self._ready)

    def watch(self, channel: Channel, request_id: int) -> None:
        """Cancel `request_id` once the channel's client has gone."""
        channel.request_id = request_id
        self._live[request_id] = channel

    def close(self) -> None:
        """Send what is left, then end the threads."""
        self._is_closed = True
        for _ in range(NUM_SENDERS):
            self._ready.put(None)
        for thread in self._threads:
            thread.join()

    def _send_loop(self) -> None:
        while (channel := self._ready.get()) is not None:
            try:
                channel.drain()
            except Exception as error:  # one broken request must not take it from the others
                print_place(error)
                channel.is_done = True
                self._cancel(channel.request_id)
            if channel.is_done:
                self._live.pop(channel.request_id, None)

    def _watch_loop(self) -> None:
        """Look at each live request in turn, within a bounded share of the CPU."""
        while not self._is_closed:
            channels = list(self._live.values())
            for channel in channels:
                if channel.is_done:
                    self._live.pop(channel.request_id, None)
                elif not channel.is_cancel_asked and channel.is_cancelled():
                    channel.is_cancel_asked = True
                    self._cancel(channel.request_id)
            time.sleep(max(POLL_S, POLL_COST_S * len(channels)))
