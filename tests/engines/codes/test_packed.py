"""Packed codes, held to compressed-tensors' own packing."""

from pathlib import Path

import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from nemotrt.engines.checkpoint.codes.packed import num_words, packed_ref, unpack
from nemotrt.engines.checkpoint.stored.safetensors_file import read_header


@given(rows=st.integers(1, 5), columns=st.integers(1, 70), bits=st.sampled_from([4, 8]))
@settings(deadline=None)
def test_codes_are_those_that_compressed_tensors_packed(rows: int, columns: int, bits: int) -> None:
    half = 1 << (bits - 1)
    codes = np.random.default_rng(columns).integers(-half, half, (rows, columns)).astype(np.int8)
    words = pack_to_int32(torch.from_numpy(codes), bits).numpy()
    assert words.shape[1] == num_words(columns, bits)
    np.testing.assert_array_equal(unpack(words, bits, columns), codes)


def test_rows_of_a_packed_tensor_are_decoded_where_they_lie(tmp_path: Path) -> None:
    codes = torch.randint(-8, 8, (7, 40), dtype=torch.int8)
    other = torch.zeros(3, dtype=torch.int32)
    save_file({"a": other, "w": pack_to_int32(codes, 4)}, tmp_path / "x.safetensors")
    ref = packed_ref(read_header(tmp_path / "x.safetensors")[0]["w"], 4, 40)
    assert ref.shape == (7, 40) and not ref.is_float
    np.testing.assert_array_equal(ref.map(), codes)
    np.testing.assert_array_equal(ref.rows(slice(2, 5)), codes[2:5])
