"""A checkpoint or an engine directory, open for tasks: log-likelihoods and greedy answers."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nemotrt.engines.artefact.manifest import MANIFEST_FILE
from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions
from nemotrt.engines.backends.native.backend import check_step
from nemotrt.engines.backends.native.engine import NativeEngine
from nemotrt.engines.backends.native.export import export
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.model.numerics import Precision
from nemotrt.engines.opening import open_engine
from nemotrt.engines.runtime.engine import Engine, Feed, Limits
from nemotrt.engines.text.chat.template import ChatTemplate, load_chat_template
from nemotrt.engines.text.tokenizer import Tokenizer, eos_ids, load_tokenizer
from nemotrt.errors import ConfigError

Floats = npt.NDArray[np.float32]
LIMITS = Limits(max_batch_size=4, max_seq_len=4096, chunk_tokens=256)


@dataclass(frozen=True, slots=True)
class OpenedModel:
    """An engine with what turns text into its tokens and back."""

    engine: Engine
    tokenizer: Tokenizer
    template: ChatTemplate | None
    end_ids: tuple[int, ...]

    @property
    def max_tokens(self) -> int:
        """The longest sequence."""
        return self.engine.limits.max_seq_len

    def score(self, context: Sequence[int], several: Sequence[Sequence[int]]) -> list[Floats]:
        """Return, of each continuation, log-probabilities and whether each token is the likeliest.

        Rows are [tokens of the continuation, 2].

        Args:
            context: token ids before each, at least one.
            several: the continuations.
        """
        found = []
        for continuation in several:
            ids = [*context, *continuation]
            logits = self._fed(ids[:-1], len(continuation)).astype(np.float64)
            top = logits.max(axis=1)
            total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
            own = logits[np.arange(len(continuation)), list(continuation)]
            found.append(np.stack([own - total, own == top], axis=1).astype(np.float32))
        return found

    def _fed(self, ids: list[int], num_rows: int) -> Floats:
        """Return the logits after the last `num_rows` of the ids, from empty state."""
        slot, rows, step = self.engine.allocate(), [], self.engine.limits.chunk_tokens
        try:
            for begin in range(0, len(ids), step):
                part = ids[begin : begin + step]
                wanted = max(0, min(len(part), begin + len(part) - (len(ids) - num_rows)))
                found = self.engine.step([Feed(slot, part, max(wanted, 1))])
                rows.append(found[len(found) - wanted :].copy())
        finally:
            self.engine.release(slot)
        return np.concatenate(rows)

    def answer(self, prompt: Sequence[int], stops: Sequence[str], max_tokens: int) -> str:
        """Return the greedy continuation, up to the first of the stops or an end of sequence."""
        slot, step = self.engine.allocate(), self.engine.limits.chunk_tokens
        ids: list[int] = []
        try:
            for begin in range(0, len(prompt), step):
                logits = self.engine.step([Feed(slot, list(prompt[begin : begin + step]))])
            while len(ids) < max_tokens:
                token = int(logits[-1].argmax())
                if token in self.end_ids:
                    break
                ids.append(token)
                text = self.tokenizer.decode(ids)
                places = [text.find(stop) for stop in stops if stop]
                if ends := [place for place in places if place >= 0]:
                    return text[: min(ends)]
                logits = self.engine.step([Feed(slot, [token])])
        finally:
            self.engine.release(slot)
        return self.tokenizer.decode(ids)


@contextmanager
def opened_model(folder: Path, options: OpenOptions = AS_BUILT) -> Iterator[OpenedModel]:
    """Yield what is in the folder, open; of a checkpoint an engine in its own precision.

    Raises:
        ConfigError: it has no tokenizer, or rounds what the native engine does not.
        EnvironmentUnfitError: no engine runs here.
    """
    if (folder / MANIFEST_FILE).is_file():
        opened = open_engine(folder, options)
        try:
            tokenizer = _known(opened.tokenizer, folder)
            yield OpenedModel(opened.engine, tokenizer, opened.template, opened.end_ids)
        finally:
            opened.engine.close()
        return
    check_step()
    checkpoint, tokenizer = open_checkpoint(folder), _known(load_tokenizer(folder), folder)
    _check_own_arithmetic(checkpoint)
    with tempfile.TemporaryDirectory(prefix="nemotrt-") as place:
        precision = checkpoint.quant.precision or Precision.BF16
        export(checkpoint, Path(place), LIMITS, precision)
        engine = NativeEngine(Path(place), LIMITS)
        ends = dict.fromkeys((*eos_ids(folder, tokenizer.token_id), *tokenizer.eos_ids))
        try:
            yield OpenedModel(engine, tokenizer, load_chat_template(folder), tuple(ends))
        finally:
            engine.close()


def _check_own_arithmetic(checkpoint: Checkpoint) -> None:
    """Raise ConfigError if the native engine would leave out some of a checkpoint's rounding."""
    quant = checkpoint.quant
    if quant.rounds_activations or quant.kv_cache_algo is not None:
        raise ConfigError(
            f"{checkpoint.path} rounds activations or the KV cache; tasks on a checkpoint would "
            "leave that out. Leave --tasks away to compare texts, or run lm-eval on a server of it."
        )


def _known(tokenizer: Tokenizer | None, folder: Path) -> Tokenizer:
    if tokenizer is None:
        raise ConfigError(f"{folder} has no tokenizer, so tasks have no tokens.")
    return tokenizer
