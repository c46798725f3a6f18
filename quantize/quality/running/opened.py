"""A block or a head opened for some sequences: on the native kernels, or else on ONNX Runtime."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from nemotrt.engines.backends.native.backend import check_step
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.model_config import LayerKind
from nemotrt.engines.model.tensor_names import Block, model_names
from nemotrt.errors import EnvironmentUnfitError
from nemotrt.quantize.calibration.forward import Floats, block_session, final_logits
from nemotrt.quantize.quality.running.block_engine import BlockEngine
from nemotrt.quantize.quality.running.fake_quant import QuantizedEmitter

Run = Callable[[Floats], Floats]


@contextmanager
def opened_block(checkpoint: Checkpoint, block: Block, num_tokens: int) -> Iterator[Run]:
    """Yield a function from a sequence's stream [tokens, width] to what it is behind the block."""
    if not _is_native(checkpoint, block):
        with block_session(checkpoint, block, num_tokens, QuantizedEmitter) as session:
            yield lambda hidden: session(hidden[None])[0][0]
        return
    with _engine(checkpoint, block, num_tokens) as engine:
        yield lambda hidden: hidden + engine.added(hidden)


@contextmanager
def opened_head(checkpoint: Checkpoint, num_tokens: int) -> Iterator[Run]:
    """Yield a function from a sequence's stream [tokens, width] to logits [tokens, vocab]."""
    if not _has_step():
        head = checkpoint.floats(model_names(checkpoint.config).lm_head)
        yield lambda hidden: final_logits(checkpoint, hidden, head)
        return
    with _engine(checkpoint, None, num_tokens) as engine:
        yield engine.added


@contextmanager
def _engine(checkpoint: Checkpoint, block: Block | None, num_tokens: int) -> Iterator[BlockEngine]:
    with (
        tempfile.TemporaryDirectory(prefix="nemotrt-") as folder,
        BlockEngine(checkpoint, block, Path(folder), num_tokens) as engine,
    ):
        yield engine


def _is_native(checkpoint: Checkpoint, block: Block) -> bool:
    """Whether the native kernels compute what the checkpoint means: they round no activation."""
    quant = checkpoint.quant
    rounds = quant.rounds_activations
    rounds |= block.kind is LayerKind.ATTENTION and quant.kv_cache_algo is not None
    return not rounds and block.kind is not LayerKind.MOE and _has_step()


@cache
def _has_step() -> bool:
    """Whether there is a compiled step here, or a compiler for it."""
    try:
        check_step()
    except EnvironmentUnfitError:
        return False
    return True
