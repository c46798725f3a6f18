"""How far each quantized linear is off by itself: both models' linears on the reference's input."""

from collections.abc import Iterator

import numpy as np

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.graph.onnx_graph import F32, OnnxGraph
from nemotrt.engines.model.tensor_names import Block
from nemotrt.quantize.calibration.forward import Floats, run_block
from nemotrt.quantize.quality.fake_quant import QuantizedEmitter, rounded_linear
from nemotrt.quantize.quality.quality import LinearError
from nemotrt.quantize.quality.source_error import weight_error
from nemotrt.quantize.scales.unfold import NOTHING, Factors, folded_factors


class PairedEmitter(QuantizedEmitter):
    """Emits the reference's block, and beside each linear the candidate's on the same input.

    Taps are sums of squares: of the rounded input's and the output's errors, and of both exact.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        graph: OnnxGraph,
        num_tokens: int,
        candidate: Checkpoint,
        factors: dict[str, Factors],
    ) -> None:
        """Prepare to run `checkpoint`, with `candidate`'s linears smoothed by `factors`."""
        super().__init__(checkpoint, graph, num_tokens)
        self.candidate = candidate
        self.factors = factors

    def linear(self, x: str, weight: str) -> str:
        """Multiply as the reference does; compare with the candidate."""
        y = super().linear(x, weight)
        if LinearWeight(self.checkpoint, weight).is_quantized:
            return y  # both are rounded: neither is exact
        if not LinearWeight(self.candidate, weight).is_quantized:
            return y
        g, smooth = self.graph, self.factors.get(weight, NOTHING)
        columns = g.constant(smooth.columns) if smooth.columns.size else ""
        entering = g.op("Div", x, columns) if columns else x
        other, rounded = rounded_linear(g, self.candidate, entering, weight)
        if columns:
            rounded = g.op("Mul", rounded, columns)
        if smooth.rows.size:
            other = g.op("Div", other, g.constant(smooth.rows))
        self._tap_square(f"{weight} input", g.op("Sub", rounded, x))
        self._tap_square(f"{weight} exact input", x)
        self._tap_square(f"{weight} output", g.op("Sub", other, y))
        self._tap_square(f"{weight} exact output", y)
        return y

    def _tap_square(self, what: str, value: str) -> None:
        """Make the sum of squares of `value` an output of the graph."""
        name = self.graph.op("ReduceSumSquare", value, keepdims=0, name=f"tap_{len(self.taps)}")
        self.taps[what] = self.graph.output(name, F32, [])


class LinearErrors:
    """Runs the reference block by block and gathers the errors of the candidate's linears."""

    def __init__(self, reference: Checkpoint, candidate: Checkpoint) -> None:
        """Compare the linears of two checkpoints of one model."""
        self.reference, self.candidate = reference, candidate
        self.found: list[LinearError] = []
        before, after = reference.quant.precision, candidate.quant.precision
        is_smooth = before is None and after is not None and after.is_smoothed
        self._factors = folded_factors(reference, candidate.tensors)[0] if is_smooth else {}

    def run_block(self, number: int, block: Block, hidden: Floats) -> None:
        """Run the reference's block `number` over `hidden` in place, and note its linears."""

        def make(checkpoint: Checkpoint, graph: OnnxGraph, num_tokens: int) -> PairedEmitter:
            return PairedEmitter(checkpoint, graph, num_tokens, self.candidate, self._factors)

        squares: dict[str, float] = {}
        for taps in run_block(self.reference, block, hidden, make):
            for what, value in taps.items():
                squares[what] = squares.get(what, 0.0) + float(value)
        self.found += self._errors(number, squares)

    def _errors(self, number: int, squares: dict[str, float]) -> Iterator[LinearError]:
        """Yield the error of each linear of one block."""
        for what in squares:
            weight, _, kind = what.partition(" ")
            if kind != "output":
                continue
            module = weight.removesuffix(".weight")
            input_error, output_error = (
                float(np.sqrt(squares[f"{weight} {part}"] / squares[f"{weight} exact {part}"]))
                if squares[f"{weight} exact {part}"]
                else 0.0
                for part in ("input", "output")
            )
            error, _ = weight_error(
                self.reference[weight],
                self.candidate.tensors,
                module,
                self._factors.get(weight, NOTHING),
            )
            yield LinearError(number, module, error, input_error, output_error)
