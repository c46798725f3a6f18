"""llama.cpp through its C API: `llama_decode`, as its own benchmark calls it."""

import ctypes
from ctypes import c_bool, c_char_p, c_int, c_void_p
from typing import Any

import numpy as np


class LlamaRunner:
    """One context with room for the largest batch."""

    def __init__(self, spec: dict[str, Any]) -> None:
        """Load the GGUF file `spec["path"]` with the shim `spec["library"]`."""
        self._library = library = ctypes.CDLL(spec["library"])
        library.peer_open.restype = c_void_p
        library.peer_open.argtypes = [c_char_p, c_int, c_int, c_int, c_int]
        library.peer_step.argtypes = [c_void_p, c_int, c_int, c_int, c_void_p, c_bool, c_void_p]
        library.peer_vocab.argtypes = library.peer_clear.argtypes = [c_void_p]
        limits = (spec["threads"], spec["batch"], spec["max_seq_len"], 512)
        self._peer = library.peer_open(spec["path"].encode(), *limits)
        if not self._peer:
            raise SystemExit(f"llama.cpp can't load {spec['path']}")
        self._batch = self._past = 0

    def begin(self, batch: int) -> None:
        """Clear the context."""
        self._library.peer_clear(self._peer)
        self._batch, self._past = batch, 0

    def feed(self, tokens: np.ndarray) -> None:
        """Decode, at most 512 tokens a call."""
        step = max(512 // self._batch, 1)
        for first in range(0, tokens.shape[1], step):
            self._step(tokens[:, first : first + step], False, None)

    def all_logits(self, tokens: np.ndarray) -> np.ndarray:
        """Decode one sequence with the logits of every token."""
        self.begin(1)
        logits = np.empty((tokens.shape[1], self._library.peer_vocab(self._peer)), np.float32)
        self._step(tokens, True, logits.ctypes.data)
        return logits

    def _step(self, tokens: np.ndarray, wants_all: bool, logits: int | None) -> None:
        """Run one llama_decode."""
        ids = np.ascontiguousarray(tokens, np.int32)
        batch, count = ids.shape
        place = (batch, count, self._past, ids.ctypes.data)
        code = self._library.peer_step(self._peer, *place, wants_all, logits)
        if code:
            raise SystemExit(f"llama_decode returned {code}")
        self._past += count
