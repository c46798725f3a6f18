"""A router's choice and the experts it chose, in plain ONNX: each expert multiplies its own tokens.

A choice is float32 [B, T, 2 * K]: the numbers of K experts, exact as floats, then their weights.
"""

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from nemotrt.engines.graph.onnx_graph import OnnxGraph
from nemotrt.engines.model.model_config import MoeConfig

INT64 = int(TensorProto.INT64)
F32 = int(TensorProto.FLOAT)
BOOL = int(TensorProto.BOOL)
TINY = 1e-20  # keeps a sum of zeros from dividing. Source: transformers 5.24, modeling_nemotron_h


def choose(g: OnnxGraph, scores: str, bias: str, moe: MoeConfig) -> str:
    """Emit the choice by scores [B, T, experts] and a bias, both float32."""
    probabilities = g.op("Sigmoid", scores)
    ranked = _of_best_groups(g, g.op("Add", probabilities, bias), moe)
    experts = _top(g, ranked, moe.num_chosen)[1]
    weights = g.op("GatherElements", probabilities, experts, axis=-1)
    if moe.is_normalized:
        total = g.op("ReduceSum", weights, g.ints(-1), keepdims=1)
        weights = g.op("Div", weights, g.op("Add", total, g.scalar(TINY)))
    weights = g.op("Mul", weights, g.scalar(moe.scaling_factor))
    return g.op("Concat", g.op("Cast", experts, to=F32), weights, axis=-1)


def _of_best_groups(g: OnnxGraph, ranked: str, moe: MoeConfig) -> str:
    """Put minus infinity for the experts outside the groups whose two best are best together."""
    if moe.num_chosen_groups == moe.num_groups:
        return ranked
    grouped = g.op("Reshape", ranked, g.ints(0, 0, moe.num_groups, -1))
    merit = g.op("ReduceSum", _top(g, grouped, 2)[0], g.ints(-1), keepdims=0)
    best = _top(g, merit, moe.num_chosen_groups)[1]
    numbers = g.constant(np.arange(moe.num_groups).reshape(1, 1, -1, 1))
    is_best = g.op("Equal", g.op("Unsqueeze", best, g.ints(2)), numbers)
    is_best = g.op("ReduceMax", g.op("Cast", is_best, to=F32), g.ints(-1), keepdims=1)
    kept = g.op("Where", g.op("Cast", is_best, to=BOOL), grouped, g.scalar(-np.inf))
    return g.op("Reshape", kept, g.ints(0, 0, moe.num_experts))


def _top(g: OnnxGraph, values: str, count: int) -> tuple[str, str]:
    """Return the largest along the last axis, and where they are."""
    return g.two("TopK", values, g.ints(count))


def each_expert(
    g: OnnxGraph, x: str, choice: str, moe: MoeConfig, run: Callable[[int, str], str]
) -> str:
    """Emit the weighted sum [B, T, width] of what `run` gives for each expert and its rows of `x`.

    The (token, expert) pairs are sorted by expert; an expert that nobody chose gets no row.
    """
    experts, weights = g.split(choice, (moe.num_chosen, moe.num_chosen))
    flat = g.op("Reshape", g.op("Cast", experts, to=INT64), g.ints(-1))
    num_pairs = g.op("Shape", flat)
    order = g.two("TopK", flat, num_pairs, largest=0)[1]  # of equals, the first comes first
    place = g.two("TopK", order, num_pairs, largest=0)[1]
    token = g.op("Div", order, g.ints(moe.num_chosen))
    numbers = g.constant(np.arange(moe.num_experts).reshape(-1, 1))
    is_own = g.op("Cast", g.op("Equal", numbers, flat), to=INT64)  # [experts, pairs]
    counts = g.op("ReduceSum", is_own, g.ints(1), keepdims=0)
    width = g.op("Shape", x, start=2)
    rows = g.op("Gather", g.op("Reshape", x, g.op("Concat", g.ints(-1), width, axis=0)), token)
    parts = g.split_rows(rows, counts, moe.num_experts)
    found = g.op("Concat", *(run(number, part) for number, part in enumerate(parts)), axis=0)
    extent = g.op("Concat", g.op("Shape", x, end=2), g.ints(moe.num_chosen, -1), axis=0)
    pairs = g.op("Reshape", g.op("Gather", found, place), extent)
    weighted = g.op("Mul", pairs, g.op("Unsqueeze", weights, g.ints(3)))
    return g.op("ReduceSum", weighted, g.ints(2), keepdims=0)
