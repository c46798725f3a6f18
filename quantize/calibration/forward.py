"""The model run block by block over equally long sequences: one block's weights in memory.

It is the standard graph without carried state, on ONNX Runtime's CPU provider in float32. Every
token of every sequence goes through block 0, then block 1, and so on; so a model of any size
runs in the memory of its largest block.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.graph.onnx_graph import F32, GRAPH_FILE, OnnxGraph
from nemotrt.engines.graph.ssd_scan import state_shape
from nemotrt.engines.graph.standard import StandardEmitter
from nemotrt.engines.model.description import BLOCKS
from nemotrt.engines.model.model_config import MambaConfig, ModelConfig
from nemotrt.engines.model.tensor_names import EXPERT, Block, model_names

Floats = npt.NDArray[np.float32]
BATCH_TOKENS = 1024  # tokens of one run of a block's graph


class SequenceEmitter(StandardEmitter):
    """Emits one block over whole sequences of `num_tokens`, from empty state."""

    def __init__(self, checkpoint: Checkpoint, graph: OnnxGraph, num_tokens: int) -> None:
        """Prepare for sequences of `num_tokens`."""
        self.taps: dict[str, str] = {}  # what is observed -> value
        super().__init__(checkpoint, graph, num_tokens)

    def _declare_inputs(self) -> None:
        """Declare the residual stream."""
        shape: list[int | str] = ["B", self.max_seq_len, self.config.hidden_size]
        self.x = self.graph.input("x", F32, shape)

    def _declare_positions(self) -> None:
        """Positions and the causal mask are constants here."""
        g, tokens = self.graph, self.max_seq_len
        self.lower = g.constant(np.tri(tokens, dtype=np.bool_))
        batch = g.op("Slice", g.op("Shape", self.x), g.ints(0), g.ints(1))
        extent = g.op("Concat", batch, g.ints(tokens), axis=0)
        self.positions = g.op("Expand", g.constant(np.arange(tokens)[None]), extent)

    def tap(self, what: str, value: str, width: int) -> None:
        """Make `value`, [.., .., width] or an expert's rows, an output under the name `what`."""
        name = self.graph.op("Identity", value, name=f"tap_{len(self.taps)}")
        is_expert = EXPERT.search(what) is not None
        rows: list[int | str] = [f"{name}_rows"] if is_expert else ["B", self.max_seq_len]
        self.taps[what] = self.graph.output(name, F32, [*rows, width])

    def causal_conv(self, x: str, block: Block, mamba: MambaConfig) -> str:
        """Conv with zeros before the first token."""
        return self.convolved(x, block, mamba, pads=[mamba.conv_kernel - 1, 0])

    def state_space(self, x: str, b: str, c: str, dt: str, block: Block, mamba: MambaConfig) -> str:
        """The scan of all tokens as one chunk, plus D * x."""
        empty = np.zeros([1, *map(int, state_shape(mamba)[1:])], np.float32)
        dt = self.time_step(dt, block, mamba)
        return self.scanned(x, b, c, dt, self.graph.constant(empty), block, mamba)[0]

    def attention(self, q: str, k: str, v: str, block: Block, config: ModelConfig) -> str:
        """Causal attention over keys (after norm and rotary) and values as a cache holds them."""
        g = self.graph
        counts = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
        parts = {"q": q, "k": k, "v": v}
        heads = {
            letter: self._heads(value, counts.get(letter, counts["k"]), block, letter)
            for letter, value in parts.items()
        }
        for letter in "kv":
            what = block.name(f"{letter}_proj.{letter}_scale")
            heads[letter] = self.cached(what, heads[letter])
        y = g.op("Attention", heads["q"], heads["k"], heads["v"], is_causal=1)
        y = g.op("Transpose", y, perm=[0, 2, 1, 3])
        return g.op("Reshape", y, g.ints(0, 0, config.q_size))

    def cached(self, what: str, heads: str) -> str:
        """Return `heads` [batch, kv_heads, tokens, head_dim] as the cache called `what` gives it.

        Here it gives what it got; a calibration observes it, a quantized model rounds it.
        """
        return heads


MakeEmitter = Callable[[Checkpoint, OnnxGraph, int], SequenceEmitter]


def embed(checkpoint: Checkpoint, tokens: npt.NDArray[np.int64]) -> Floats:
    """Return the embeddings of `tokens` [sequences, tokens], reading only the rows it needs."""
    table = checkpoint[model_names(checkpoint.config).embeddings].map()
    return np.asarray(table[tokens], np.float32)


def run_block(
    checkpoint: Checkpoint, block: Block, hidden: Floats, make: MakeEmitter
) -> Iterator[dict[str, Floats]]:
    """Run `block` over `hidden` [sequences, tokens, width] in place; yield each batch's taps."""
    config = checkpoint.config
    num_tokens = hidden.shape[1]
    with tempfile.TemporaryDirectory(prefix="nemotrt-") as folder:
        graph = OnnxGraph(f"block_{block.prefix}", Path(folder))
        emitter = make(checkpoint, graph, num_tokens)
        normed = emitter.rms_norm(emitter.x, block.norm, config.norm_eps)
        out = emitter.add(emitter.x, BLOCKS[block.kind](config, block, normed, emitter))
        graph.op("Identity", out, name="y")
        graph.output("y", F32, ["B", num_tokens, config.hidden_size])
        graph.save()
        session = _session(Path(folder))
        step = max(1, BATCH_TOKENS // num_tokens)
        for begin in range(0, len(hidden), step):
            batch = hidden[begin : begin + step]
            names = ["y", *emitter.taps.values()]
            y, *tapped = session.run(names, {"x": batch})
            hidden[begin : begin + step] = y
            yield dict(zip(emitter.taps, tapped, strict=True))
        del session


def final_logits(checkpoint: Checkpoint, hidden: Floats, head: Floats) -> Floats:
    """Return logits [tokens, vocab] of one sequence's `hidden` [tokens, width]."""
    config = checkpoint.config
    weight = checkpoint.floats(model_names(config).final_norm)
    square = np.mean(hidden.astype(np.float64) ** 2, axis=-1, keepdims=True)
    normed = (hidden / np.sqrt(square + config.norm_eps)).astype(np.float32) * weight
    logits: Floats = normed @ head.T
    return logits


def windows(tokens: Sequence[int], num_tokens: int) -> npt.NDArray[np.int64]:
    """Cut one long token list into rows of `num_tokens`; a shorter rest is dropped."""
    count = len(tokens) // num_tokens
    return np.array(tokens[: count * num_tokens], np.int64).reshape(count, num_tokens)


def _session(folder: Path) -> Any:
    """Return an ONNX Runtime session over the graph in `folder`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # one run's memory goes before the next block's comes
    return onnxruntime.InferenceSession(
        str(folder / GRAPH_FILE), options, providers=["CPUExecutionProvider"]
    )
