"""A GGUF file with a tensor of every type, by ggml's own quantizer and gguf's own writer.

usage: python gguf_blocks.py GGUF_PY LIBGGML_BASE OUT.gguf

Beside each tensor stands what gguf's own dequantization makes of it, as TYPE.expected.
"""

import ctypes
import sys

import numpy as np

ROWS, COLUMNS = 3, 512
FLOATS = ("F32", "F16", "BF16")
TYPES = (*FLOATS, "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K")


def main(gguf_py: str, library: str, target: str) -> None:
    """Write the file."""
    sys.path.insert(0, gguf_py)
    import gguf

    ggml = ctypes.CDLL(library)
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    ggml.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    writer = gguf.GGUFWriter(target, "nemotron_h")
    random = np.random.default_rng(0)
    for word in TYPES:
        kind = gguf.GGMLQuantizationType[word]
        values = random.standard_normal((ROWS, COLUMNS)).astype(np.float32) + np.float32(0.2)
        if word in FLOATS:
            packed = gguf.quants.quantize(values, kind)
        else:
            size, num_bytes = gguf.GGML_QUANT_SIZES[kind]
            packed = np.empty((ROWS, COLUMNS // size * num_bytes), np.uint8)
            ggml.ggml_quantize_chunk(
                int(kind), values.ctypes.data, packed.ctypes.data, 0, ROWS, COLUMNS, None
            )
        writer.add_tensor(word, packed, raw_dtype=kind)
        writer.add_tensor(f"{word}.expected", gguf.quants.dequantize(packed, kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
