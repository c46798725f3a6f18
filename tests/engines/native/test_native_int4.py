"""int4 linears: transformers with the decoded weights and rounded inputs is the oracle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.build.engine_builder import BuildSpec, build_engine
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.backends.native.library.library import available_isas
from nemotrt.engines.backends.native.program.packing import int4_panels
from nemotrt.engines.backends.native.program.program import (
    CELL,
    DEPTH_BLOCK,
    PANEL,
    TensorKind,
    read_program,
)
from nemotrt.engines.checkpoint.checkpoint import open_checkpoint
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.runtime.engine import Feed, Limits
from support import reference

LIMITS = Limits(max_batch_size=2, max_seq_len=64, chunk_tokens=16)
KERNELS = available_isas()
TOKENS = [5, 17, 80, 3, 3, 41, 62, 9, 11, 90]


def decoded(model: Any, folder: Path) -> Any:
    """Give the model its weights as int4 codes mean them, and rounded inputs; the head is int8."""
    checkpoint = open_checkpoint(folder)
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        stored = next(
            full
            for prefix in ("", "backbone.")
            if (full := f"{prefix}{name.removeprefix('model.') if prefix else name}.weight")
            in checkpoint.tensors
        )
        linear = LinearWeight(checkpoint, stored)
        if name == "lm_head":
            codes, scale = linear.int8()
            values = codes * scale[:, None]
        else:
            codes, scales = linear.int4_groups(slice(None), CELL)
            values = codes * np.repeat(scales, CELL, axis=1)[:, : codes.shape[1]]
            module.register_forward_pre_hook(rounded_input)
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(values))
    return model


def rounded_input(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Return the input as int8 with a scale for each 32."""
    (x,) = inputs
    width = x.shape[-1]
    cells = torch.nn.functional.pad(x, (0, -width % CELL)).unflatten(-1, (-1, CELL))
    scale = (cells.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-30)
    return ((cells / scale).round() * scale).flatten(-2)[..., :width], *inputs[1:]


@pytest.mark.parametrize(
    "model",
    [
        lambda: reference.nemotron_h("M-*M-"),
        lambda: reference.qwen3(),
        lambda: reference.nemotron_h("-*-", intermediate_size=2 * DEPTH_BLOCK + 400),
    ],
    ids=["hybrid", "dense", "deep"],
)
def test_logits_are_those_of_the_decoded_weights(tmp_path: Path, model: Any) -> None:
    """By each kind of kernels, of one token and of several."""
    model = model()
    reference.save(model, tmp_path / "c")
    spec = BuildSpec("native", precision=Precision.INT4_WO, limits=LIMITS)
    build_engine(tmp_path / "c", tmp_path / "e", spec)
    kinds = [tensor.kind for tensor in read_program(tmp_path / "e").tensors]
    assert kinds.count(TensorKind.PANELS_INT8) == 1, "the head"
    assert TensorKind.PANELS_BF16 not in kinds
    exact = reference.logits(model, TOKENS)
    expected = reference.logits(decoded(model, tmp_path / "c"), TOKENS)
    scale = exact.std()
    assert np.abs(exact - expected).max() > 0.02 * scale, "the codes must matter"
    for isa in KERNELS:
        engine = NativeEngine(tmp_path / "e", LIMITS, 1, isa)
        slot, rows = engine.allocate(), []
        for part in (TOKENS[:1], TOKENS[1:3], TOKENS[3:]):
            rows.append(engine.step([Feed(slot, part)])[0].copy())
        engine.close()
        np.testing.assert_allclose(rows, expected[[0, 2, 9]], atol=0.01 * scale, rtol=0)


@given(rows=st.integers(1, 40), columns=st.integers(1, 100), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_panels_hold_every_code_and_scale(rows: int, columns: int, seed: int) -> None:
    """Read back byte by byte, as the layout is told in step/int4.h."""
    rng = np.random.default_rng(seed)
    cells = -(-columns // CELL)
    codes = rng.integers(-8, 8, (rows, columns)).astype(np.int8)
    scales = rng.random((rows, cells)).astype(np.float16)
    packed = int4_panels(codes, scales)
    assert packed.shape == (-(-rows // PANEL), cells, 2 * PANEL + PANEL * CELL // 2)
    for r, k in rng.integers(0, (rows, columns), (20, 2)):
        cell = packed[r // PANEL, k // CELL]
        assert cell[: 2 * PANEL].view(np.float16)[r % PANEL] == scales[r, k // CELL]
        eight, inside = k % CELL // 8, k % 8
        byte = int(cell[2 * PANEL + eight * 4 * PANEL + r % PANEL * 4 + inside % 4])
        assert (byte >> 4 if inside >= 4 else byte & 15) - 8 == codes[r, k]
