"""llama.cpp's tokens of a text, and its logits of each.

usage: python llama_logits.py SHIM GGUF OUT.npz < TEXT
"""

import ctypes
import sys
from ctypes import POINTER, c_bool, c_char_p, c_int32, c_void_p
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks/cpu"))
from runners_llama import LlamaRunner  # type: ignore[import-not-found]


def main(shim: str, path: str, target: str) -> None:
    """Write `ids` [tokens] and `logits` [tokens, vocabulary]."""
    spec = {"library": shim, "path": path, "threads": 1, "batch": 1, "max_seq_len": 512}
    runner = LlamaRunner(spec)
    llama = ctypes.CDLL(str(Path(shim).parent / "bin/libllama.so"))
    llama.llama_model_get_vocab.restype = c_void_p
    llama.llama_model_get_vocab.argtypes = [c_void_p]
    llama.llama_tokenize.argtypes = [
        *(c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool)
    ]
    model = ctypes.cast(runner._peer, POINTER(c_void_p))[0]  # the shim's first field
    text, room = sys.stdin.read().encode(), (c_int32 * 1024)()
    vocab = llama.llama_model_get_vocab(model)
    count = llama.llama_tokenize(vocab, text, len(text), room, 1024, True, True)
    ids = np.array(room[:count], np.int32)
    np.savez(target, ids=ids, logits=runner.all_logits(ids[None]))


if __name__ == "__main__":
    main(*sys.argv[1:])
