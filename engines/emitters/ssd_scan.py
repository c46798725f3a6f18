"""The state-space dual form of Mamba-2's recurrence over one chunk, in plain ONNX.

A quadratic, attention-like form inside the chunk, plus the carried state (Mamba-2 paper, arXiv
2405.21060, section 6). B, T: batch and tokens; G groups of R heads of P channels; N states.
"""

from dataclasses import dataclass

import numpy as np

from nemotrt.engines.model_config import MambaConfig
from nemotrt.engines.onnx_graph import OnnxGraph

MASKED = -1e30  # exp() of it is 0; a finite value keeps 0 * x away from NaN


@dataclass(frozen=True, slots=True)
class Chunk:
    """The values that a scan reads, all float32."""

    heads: str  # [B, T, G*R, P]
    b: str  # [B, T, G*N]
    c: str  # [B, T, G*N]
    dt: str  # [B, T, G*R], after softplus; 0 for padding
    rate: str  # [G*R], A < 0
    carried: str  # [B, G*R, P, N]
    lower: str  # [T, T] bool, true where the row's token may see the column's


def state_shape(mamba: MambaConfig) -> list[int | str]:
    """Return the shape of one layer's carried state."""
    return ["B", mamba.num_heads, mamba.head_dim, mamba.state_size]


def scan(g: OnnxGraph, mamba: MambaConfig, chunk: Chunk) -> tuple[str, str]:
    """Emit the scan; return (y [B, T, G*R, P] without the skip, the state after the chunk)."""
    groups, head, state = mamba.num_groups, mamba.head_dim, mamba.state_size
    repeat = mamba.num_heads // groups

    # log of the decay from the chunk's start to each token: [B, G*R, T]
    cumulative = g.op("CumSum", g.op("Mul", chunk.dt, chunk.rate), g.scalar(1, np.int64))
    cumulative = g.op("Transpose", cumulative, perm=[0, 2, 1])
    by_group = g.op("Reshape", cumulative, g.ints(0, groups, repeat, -1))  # [B, G, R, T]

    dx = g.op("Mul", chunk.heads, g.op("Unsqueeze", chunk.dt, g.ints(3)))
    dx = g.op("Reshape", dx, g.ints(0, 0, groups, repeat, head))
    dx = g.op("Transpose", dx, perm=[0, 2, 3, 1, 4])  # [B, G, R, T, P]
    b, c = (
        g.op("Transpose", g.op("Reshape", v, g.ints(0, 0, groups, state)), perm=[0, 2, 1, 3])
        for v in (chunk.b, chunk.c)
    )  # [B, G, T, N]

    y = g.op(
        "Add", _inside(g, chunk.lower, by_group, b, c, dx), _before(g, mamba, chunk, by_group, c)
    )
    y = g.op("Transpose", y, perm=[0, 3, 1, 2, 4])
    y = g.op("Reshape", y, g.ints(0, 0, mamba.num_heads, head))

    # the state after the chunk: what was carried, decayed, plus each token's outer product
    last = g.op("Slice", cumulative, g.ints(-1), g.ints(2**31 - 1), g.ints(2))  # [B, G*R, 1]
    rest = g.op(
        "Reshape", g.op("Exp", g.op("Sub", last, cumulative)), g.ints(0, groups, repeat, -1)
    )
    late = g.op("Mul", dx, g.op("Unsqueeze", rest, g.ints(4)))
    late = g.op("Transpose", late, perm=[0, 1, 2, 4, 3])  # [B, G, R, P, T]
    late = g.op("Reshape", late, g.ints(0, 0, repeat * head, -1))
    added = g.op("Reshape", g.op("MatMul", late, b), g.ints(0, mamba.num_heads, head, state))
    kept = g.op("Mul", chunk.carried, g.op("Unsqueeze", g.op("Exp", last), g.ints(3)))
    return y, g.op("Add", added, kept)


def _inside(g: OnnxGraph, lower: str, by_group: str, b: str, c: str, dx: str) -> str:
    """Return what the chunk's own tokens contribute: [B, G, R, T, P]."""
    rows, columns = (g.op("Unsqueeze", by_group, g.ints(axis)) for axis in (4, 3))
    masked = g.op("Where", lower, g.op("Sub", rows, columns), g.scalar(MASKED))
    scores = g.op("MatMul", c, g.op("Transpose", b, perm=[0, 1, 3, 2]))  # [B, G, T, T]
    scores = g.op("Mul", g.op("Unsqueeze", scores, g.ints(2)), g.op("Exp", masked))
    return g.op("MatMul", scores, dx)


def _before(g: OnnxGraph, mamba: MambaConfig, chunk: Chunk, by_group: str, c: str) -> str:
    """Return what the carried state contributes: [B, G, R, T, P]."""
    repeat = mamba.num_heads // mamba.num_groups
    shape = g.ints(0, mamba.num_groups, repeat * mamba.head_dim, mamba.state_size)
    flat = g.op("Transpose", g.op("Reshape", chunk.carried, shape), perm=[0, 1, 3, 2])
    y = g.op("Reshape", g.op("MatMul", c, flat), g.ints(0, 0, 0, repeat, mamba.head_dim))
    y = g.op("Transpose", y, perm=[0, 1, 3, 2, 4])
    return g.op("Mul", y, g.op("Unsqueeze", g.op("Exp", by_group), g.ints(4)))
