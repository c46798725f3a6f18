"""The state-space dual form of Mamba-2's recurrence over one chunk, in plain ONNX.

A quadratic, attention-like form inside the chunk, plus the carried state (Mamba-2 paper, arXiv
2405.21060, section 6). B, T: batch and tokens; G groups of R heads of P channels; N states.
"""

from dataclasses import dataclass

import numpy as np

from nemotrt.engines.graph.onnx_graph import OnnxGraph
from nemotrt.engines.model.model_config import MambaConfig

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


def scan(
    g: OnnxGraph, mamba: MambaConfig, chunk: Chunk, *, is_first_apart: bool = False
) -> tuple[str, str]:
    """Emit the scan; return (y [B, T, G*R, P] without the skip, the state after the chunk).

    With `is_first_apart` the first token's products are sums of their own beside those of the rest.
    A compiler that knows T = 1 is then left with no matrix product that it would copy the state
    for: it reads the state once and writes it once.
    """
    groups, head, state = mamba.num_groups, mamba.head_dim, mamba.state_size
    repeat = mamba.num_heads // groups

    # log of the decay from the chunk's start to each token: [B, G*R, T]
    cumulative = _running_sum(g, g.op("Mul", chunk.dt, chunk.rate), is_first_apart)
    cumulative = g.op("Transpose", cumulative, perm=[0, 2, 1])
    by_group = g.op("Reshape", cumulative, g.ints(0, groups, repeat, -1))  # [B, G, R, T]

    dx = g.op("Mul", chunk.heads, g.op("Unsqueeze", chunk.dt, g.ints(3)))
    dx = g.op("Reshape", dx, g.ints(0, 0, groups, repeat, head))
    dx = g.op("Transpose", dx, perm=[0, 2, 3, 1, 4])  # [B, G, R, T, P]
    b, c = (
        g.op("Transpose", g.op("Reshape", v, g.ints(0, 0, groups, state)), perm=[0, 2, 1, 3])
        for v in (chunk.b, chunk.c)
    )  # [B, G, T, N]

    scores = _dot(g, c, b, is_first_apart)  # [B, G, T, T]
    inside = _inside(g, chunk.lower, by_group, scores, dx)
    flat = g.op("Reshape", chunk.carried, g.ints(0, groups, repeat * head, state))
    before = _before(g, mamba, by_group, _dot(g, c, flat, is_first_apart))
    y = g.op("Add", inside, before)
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


def _inside(g: OnnxGraph, lower: str, by_group: str, scores: str, dx: str) -> str:
    """Return what the chunk's own tokens contribute: [B, G, R, T, P]."""
    rows, columns = (g.op("Unsqueeze", by_group, g.ints(axis)) for axis in (4, 3))
    masked = g.op("Where", lower, g.op("Sub", rows, columns), g.scalar(MASKED))
    scores = g.op("Mul", g.op("Unsqueeze", scores, g.ints(2)), g.op("Exp", masked))
    return g.op("MatMul", scores, dx)


def _before(g: OnnxGraph, mamba: MambaConfig, by_group: str, read: str) -> str:
    """Return what the carried state contributes, of which each token read [B, G, T, R*P]."""
    repeat = mamba.num_heads // mamba.num_groups
    y = g.op("Reshape", read, g.ints(0, 0, 0, repeat, mamba.head_dim))
    y = g.op("Transpose", y, perm=[0, 1, 3, 2, 4])  # [B, G, R, T, P]
    return g.op("Mul", y, g.op("Unsqueeze", g.op("Exp", by_group), g.ints(4)))


def _dot(g: OnnxGraph, tokens: str, rows: str, is_first_apart: bool) -> str:
    """Return tokens [B, G, T, N] times rows [B, G, M, N], summed over N: [B, G, T, M]."""
    if not is_first_apart:
        return g.op("MatMul", tokens, g.op("Transpose", rows, perm=[0, 1, 3, 2]))
    first, others = _apart(g, tokens, axis=2)
    by_sum = g.op("ReduceSum", g.op("Mul", rows, first), g.ints(-1), keepdims=1)
    # rows, which may be the state, come first: a GEMM reads them as they lie
    by_product = g.op("MatMul", rows, g.op("Transpose", others, perm=[0, 1, 3, 2]))
    return g.op("Transpose", g.op("Concat", by_sum, by_product, axis=3), perm=[0, 1, 3, 2])


def _running_sum(g: OnnxGraph, x: str, is_first_apart: bool) -> str:
    """Return the sums of x [B, T, heads] up to each token."""
    if not is_first_apart:
        return g.op("CumSum", x, g.scalar(1, np.int64))
    first, others = _apart(g, x, axis=1)
    later = g.op("Add", g.op("CumSum", others, g.scalar(1, np.int64)), first)
    return g.op("Concat", first, later, axis=1)


def _apart(g: OnnxGraph, x: str, axis: int) -> tuple[str, str]:
    """Return the first token of x, and the others, which may be none."""
    one, end, along = g.ints(1), g.ints(2**31 - 1), g.ints(axis)
    return g.op("Slice", x, g.ints(0), one, along), g.op("Slice", x, one, end, along)
