"""Codes and scales against torch's casts and ModelOpt's exports."""

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.torch import load_file, save_file

from nemotrt.engines.checkpoint.stored.safetensors_file import read_header
from nemotrt.engines.model.numerics import Precision
from nemotrt.quantize.conversion import kernels
from nemotrt.quantize.conversion.convert import tensor_scale
from nemotrt.quantize.conversion.layout import Codes, Entry, Linear, Scales, make_shard
from nemotrt.quantize.writing.shard import write_shard
from support.examples import up_to
from support.peers import peer_python

FIXTURES = Path(__file__).parent / "fixtures"
ORACLE = Path(__file__).parent / "oracles/modelopt_export.py"
CONFIGS = {
    "FP8_DEFAULT_CFG": Precision.FP8,
    "FP8_PER_CHANNEL_PER_TOKEN_CFG": Precision.FP8_DYNAMIC,
    "INT8_WEIGHT_ONLY_CFG": Precision.INT8_WO,
}
NONE = np.empty(0, np.float32)
TINY = np.float32(np.finfo(np.float32).tiny)


def quantize_file(source: Path, target: Path, encoding: Precision) -> dict[str, torch.Tensor]:
    """Quantize every tensor of a file and return what safetensors' own reader finds."""
    entries = []
    for name, ref in read_header(source)[0].items():
        linear = Linear(f"{name}.weight", ref, encoding.weights)
        dtype = "I8" if encoding is Precision.INT8_WO else "F8_E4M3"
        shape = () if encoding is Precision.FP8 else (ref.shape[0],)
        entries.append(Entry(linear.name, dtype, ref.shape, Codes(linear)))
        entries.append(Entry(f"{linear.module}.weight_scale", "F32", shape, Scales(linear)))
    with ThreadPoolExecutor(2) as pool:
        write_shard(source, target, make_shard(source, entries), pool, lambda num_bytes: None)
    return dict(load_file(target))


def differences(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> list[str]:
    assert ours.keys() == theirs.keys()
    bad = []
    for name, tensor in ours.items():
        other = theirs[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape), name
        if as_bytes(tensor) != as_bytes(other):
            bad.append(name)
    return bad


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def is_zero_for_modelopt(theirs: dict[str, torch.Tensor], name: str) -> bool:
    """ModelOpt gives a tensor of zeros the scale 0 and NaN codes; ours are 1 and 0."""
    scale = theirs[f"{name.rpartition('.')[0]}.weight_scale"]
    return scale.ndim == 0 and float(scale) == 0


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_same_bits_as_stored_modelopt_exports(tmp_path: Path, dtype: str, config: str) -> None:
    ours = quantize_file(FIXTURES / f"edge_{dtype}.safetensors", tmp_path / "o", CONFIGS[config])
    theirs = dict(load_file(FIXTURES / f"modelopt_{dtype}_{config}.safetensors"))
    bad = [name for name in differences(ours, theirs) if not is_zero_for_modelopt(theirs, name)]
    assert bad == []


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_same_bits_as_modelopt_itself(tmp_path: Path, config: str) -> None:
    """On new random weights; and the stored exports are what it gives."""
    seed = int.from_bytes(os.urandom(4), "little")
    sources = {}
    for dtype, name in ((torch.bfloat16, "bf16"), (torch.float16, "f16")):
        save_file(random_weights(seed, dtype), tmp_path / f"new_{name}.safetensors")
        sources[f"new_{name}"] = tmp_path / f"new_{name}.safetensors"
        sources[f"edge_{name}"] = FIXTURES / f"edge_{name}.safetensors"
    command = [str(peer_python("modelopt")), str(ORACLE), config]
    for name, source in sources.items():
        command += [str(source), str(tmp_path / f"modelopt_{name}")]
    subprocess.run(command, check=True, capture_output=True)
    for name, source in sources.items():
        theirs = dict(load_file(tmp_path / f"modelopt_{name}"))
        if name.startswith("edge"):
            stored = load_file(
                FIXTURES / f"modelopt_{name.removeprefix('edge_')}_{config}.safetensors"
            )
            assert differences(dict(stored), theirs) == []
        else:
            ours = quantize_file(source, tmp_path / "o", CONFIGS[config])
            assert differences(ours, theirs) == [], f"{name}, seed {seed}"


def random_weights(seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Gaussian and heavy-tailed weights in the model's proportions."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"in_proj": (2832, 560), "up": (1960, 560), "down": (560, 1960)}
    tensors = {
        name: (torch.randn(shape, generator=generator) * 0.03).to(dtype)
        for name, shape in shapes.items()
    }
    uniform = torch.rand(shapes["up"], generator=generator) - 0.5
    return tensors | {"cauchy": (torch.tan(3.1 * uniform) * 0.02).to(dtype)}


def test_every_e4m3_boundary_rounds_as_torch_does() -> None:
    """All codes, the midpoints between them, and their float32 neighbours."""
    codes = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    middles = (codes[1:] + codes[:-1]) / 2
    points = np.concatenate([codes, middles])
    near = [points, np.nextafter(points, np.float32(0)), np.nextafter(points, np.float32(448))]
    values = np.concatenate([*near, *(-part for part in near)]).astype(np.float32)[None]
    ours = np.empty(values.shape, np.uint8)
    kernels.fp8_per_tensor(values, NONE, ours, np.float32(1), 0)
    expected = torch.from_numpy(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    np.testing.assert_array_equal(ours, expected)


# A scale is itself rounded: half of amax may be the code 63.5 or a little less.
HALF_STEP = 0.5 + 127 * 2.0**-23


def weights() -> st.SearchStrategy[np.ndarray]:
    floats = st.floats(allow_nan=False, allow_infinity=False, width=32)
    shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)
    return arrays(np.float32, shapes, elements=floats)


@settings(deadline=None, max_examples=up_to(200))
@given(weights())
@example(np.array([[4.2080509e16, 2.1040255e16]], np.float32))
def test_any_finite_weight_comes_back_within_the_formats_bound(weight: np.ndarray) -> None:
    bits = weight.astype(ml_dtypes.bfloat16)
    bits[~np.isfinite(bits)] = 1  # float32's largest values overflow bfloat16
    exact = bits.astype(np.float64)
    codes, scales = np.empty(weight.shape, np.uint8), np.empty(weight.shape[0], np.float32)
    floor = 2.0**-149  # scales of subnormal weights are themselves rounded

    kernels.int8_per_channel(bits.view(np.uint16), NONE, codes, scales, TINY, 0)
    back = codes.view(np.int8).astype(np.float64) * scales[:, None]
    assert (np.abs(back - exact) <= scales[:, None] * HALF_STEP + 128 * floor).all()

    kernels.fp8_per_channel(bits.view(np.uint16), NONE, codes, scales, TINY)
    back = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float64) * scales[:, None]
    bound = np.maximum(np.abs(exact) / 16, scales[:, None] * 2.0**-10) * 1.0000001 + 448 * floor
    assert np.isfinite(back).all() and (np.abs(back - exact) <= bound).all()

    amax = np.float32(np.abs(bits.astype(np.float32)).max())
    scale = tensor_scale(amax)
    kernels.fp8_per_tensor(bits.view(np.uint16), NONE, codes, scale, 16)
    back = codes.view(ml_dtypes.float8_e4m3fn).astype(np.float64) * float(scale)
    twice = np.abs(exact) * 2.0**-8  # ModelOpt rounds the quotient to bfloat16 first
    bound = np.maximum(np.abs(exact) / 16, float(scale) * 2.0**-10) * 1.0000001 + twice
    assert np.isfinite(back).all() and (np.abs(back - exact) <= bound + 448 * floor).all()


TORCH_TYPES = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 0.0}


@pytest.mark.parametrize("encoding", CONFIGS.values())
@pytest.mark.parametrize("dtype", TORCH_TYPES)
@settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(weight=weights())
def test_any_finite_file_comes_back_within_the_formats_bound(
    tmp_path: Path, dtype: torch.dtype, encoding: Precision, weight: np.ndarray
) -> None:
    """Read back by safetensors and torch, in every type that can be quantized."""
    tensor = torch.from_numpy(weight).to(dtype)
    tensor[~torch.isfinite(tensor)] = -1
    save_file({"w": tensor}, tmp_path / "in")
    found = quantize_file(tmp_path / "in", tmp_path / "out", encoding)
    scale = found["w.weight_scale"].double().reshape(-1, 1)
    exact, back = tensor.double(), found["w.weight"].double() * scale
    assert torch.isfinite(back).all() and torch.isfinite(scale).all() and (scale > 0).all()
    if encoding is Precision.INT8_WO:
        bound = scale * HALF_STEP
    else:
        bound = torch.maximum(exact.abs() / 16, scale * 2.0**-10) * 1.0000001
    if encoding is Precision.FP8:
        bound = bound + exact.abs() * TORCH_TYPES[dtype]  # the quotient is rounded twice
    assert ((back - exact).abs() <= bound + 448 * 2.0**-149).all()
    if encoding is not Precision.FP8:
        assert (scale[(exact == 0).all(1)] == 1).all()
    signs = found["w.weight"].view(torch.uint8) >> 7  # E4M3 has a negative zero, int8 has none
    if encoding is not Precision.INT8_WO:
        assert torch.equal(signs.bool(), torch.signbit(tensor))


@pytest.mark.parametrize("encoding", CONFIGS.values())
@pytest.mark.parametrize("value", [0.0, -0.0])
def test_a_tensor_of_zeros_has_scale_one(tmp_path: Path, encoding: Precision, value: float) -> None:
    """ModelOpt gives it NaN codes for FP8: the one place where ours must not be its bits."""
    save_file({"w": torch.full((3, 5), value, dtype=torch.bfloat16)}, tmp_path / "in")
    found = quantize_file(tmp_path / "in", tmp_path / "out", encoding)
    assert (found["w.weight_scale"] == 1).all() and (found["w.weight"].float() == 0).all()


@pytest.mark.parametrize("encoding", CONFIGS.values())
@pytest.mark.parametrize("value", [0.0, 1e-40, -3.0, 448.0, 449.0, 3e38])
def test_a_file_of_one_element(tmp_path: Path, encoding: Precision, value: float) -> None:
    save_file({"w": torch.tensor([[value]], dtype=torch.bfloat16)}, tmp_path / "in")
    found = quantize_file(tmp_path / "in", tmp_path / "out", encoding)
    exact = float(torch.tensor(value, dtype=torch.bfloat16))
    back = float(found["w.weight"].double()) * float(found["w.weight_scale"].double())
    assert back == pytest.approx(exact, rel=1e-6, abs=1e-40)


@settings(deadline=None, max_examples=50)
@given(weights())
def test_amax_of_columns_is_numpys(weight: np.ndarray) -> None:
    amax = np.zeros(weight.shape[1], np.float32)
    kernels.amax_columns(weight, amax)
    np.testing.assert_array_equal(amax, np.abs(weight).max(0))
    bits = weight.astype(ml_dtypes.bfloat16)
    bits[~np.isfinite(bits)] = 1
    amax[:] = 0
    kernels.amax_columns(bits.view(np.uint16), amax)
    np.testing.assert_array_equal(amax, np.abs(bits.astype(np.float32)).max(0))


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-40, -3.0, 448.0, 3e38])
def test_one_element(value: float) -> None:
    weight = np.array([[value]], ml_dtypes.bfloat16).view(np.uint16)
    exact = float(weight.view(ml_dtypes.bfloat16)[0, 0])
    codes, scales = np.empty((1, 1), np.uint8), np.empty(1, np.float32)
    kernels.int8_per_channel(weight, NONE, codes, scales, TINY, 0)
    assert float(codes.view(np.int8)[0, 0]) * scales[0] == pytest.approx(exact, rel=1e-6, abs=1e-40)
    kernels.fp8_per_channel(weight, NONE, codes, scales, TINY)
    code = float(codes.view(ml_dtypes.float8_e4m3fn)[0, 0])
    assert code * scales[0] == pytest.approx(exact, rel=1e-6, abs=1e-40)
    if abs(exact) > 1e-37:
        assert abs(code) == 448


@settings(deadline=None, max_examples=up_to(100))
@given(weights())
def test_codes_equal_torchs_true_division(weight: np.ndarray) -> None:
    weight = np.where(np.abs(weight) < 1e-30, 0, weight).astype(np.float32)
    codes, scales = np.empty(weight.shape, np.uint8), np.empty(weight.shape[0], np.float32)
    kernels.int8_per_channel(weight, NONE, codes, scales, TINY, 0)
    tensor = torch.from_numpy(weight)
    amax = tensor.abs().amax(1)
    expected = torch.where(amax == 0, torch.ones(()), amax / 127)
    np.testing.assert_array_equal(scales, expected.numpy())
    rounded = (tensor / expected[:, None]).round().clamp(-128, 127).to(torch.int8)
    np.testing.assert_array_equal(codes.view(np.int8), rounded.numpy())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_bad_value_shows_in_its_rows_scale(value: float) -> None:
    weight = np.ones((3, 5), ml_dtypes.bfloat16)
    weight[1, 2] = value
    codes, scales = np.empty(weight.shape, np.uint8), np.empty(3, np.float32)
    kernels.fp8_per_channel(weight.view(np.uint16), NONE, codes, scales, TINY)
    assert np.isfinite(scales).tolist() == [True, False, True]
    kernels.amax_rows(weight.view(np.uint16), NONE, scales)
    assert np.isfinite(scales).tolist() == [True, False, True]


def test_kernels_need_no_torch() -> None:
    code = "import sys, nemotrt.quantize.writing.writer; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd="/").returncode == 0
