"""An engine itself against the reference checkpoint: its own steps, one token a slot at a time.

The engine's kernels and arithmetic decide, on whatever it runs; nothing inside it is seen, so
there is no error of a layer or a linear.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions
from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.engines.model.tensor_names import blocks
from nemotrt.engines.opening import OpenEngine, open_engine
from nemotrt.engines.runtime.engine import Engine, Feed
from nemotrt.engines.text.tokenizer import load_tokenizer
from nemotrt.errors import ConfigError
from nemotrt.quantize.quality.quality import Ids, Quality, Tally
from nemotrt.quantize.quality.running.opened import Run, opened_block, opened_head
from nemotrt.quantize.quality.running.streams import Stream

Progress = Callable[[int], None]


def evaluate_engine(
    reference: Checkpoint,
    folder: Path,
    tokens: dict[str, Ids],
    progress: Progress,
    options: OpenOptions = AS_BUILT,
    left_out: Mapping[str, int] | None = None,
) -> Quality:
    """Return the quality of the engine in `folder` on each named [sequences, tokens].

    `progress` is told of each block of the reference, and of each token that the engine takes.

    Raises:
        ConfigError: the engine is of another model, or too short for the sequences.
        ArtefactError: a file of the engine, or its checkpoint, has changed.
        EnvironmentUnfitError: its backend can't run here.
    """
    if not read_model_config(folder).computes_as(reference.config):
        raise ConfigError(f"{folder} is an engine of another model than {reference.path}.")
    opened = open_engine(folder, options)
    try:
        _check(opened, reference, folder, tokens)
        every = np.concatenate(list(tokens.values()))
        with tempfile.TemporaryDirectory(prefix="nemotrt-") as place:
            hidden = Stream(Path(place) / "reference", reference, every)
            for block in blocks(reference.config):
                with opened_block(reference, block, every.shape[1]) as run:
                    for row in range(len(hidden)):
                        hidden[row] = run(hidden[row])
                progress(1)
            texts, begin = [], 0
            with opened_head(reference, every.shape[1]) as head:
                for name, rows in tokens.items():
                    tally = Tally(name, (left_out or {}).get(name, 0))
                    _compare(tally, rows, begin, hidden, opened.engine, head, progress)
                    texts.append(tally.result())
                    begin += len(rows)
    finally:
        opened.engine.close()
    return Quality(
        reference=str(reference.path),
        candidate=str(folder),
        backend=opened.manifest.backend,
        precision=opened.manifest.precision.value,
        texts=tuple(texts),
    )


def _check(opened: OpenEngine, reference: Checkpoint, folder: Path, tokens: dict[str, Ids]) -> None:
    """Raise unless the engine means the same by these tokens, and holds as many."""
    limits, engine = opened.engine.limits, opened.engine
    longest = max(rows.shape[1] for rows in tokens.values())
    if longest - 1 > limits.max_seq_len:
        raise ConfigError(
            f"sequences of {longest} tokens don't fit {folder}, built for {limits.max_seq_len} "
            f"(the last is not fed); give --sequence-tokens {limits.max_seq_len + 1} or less."
        )
    if engine.vocab_size != reference.config.vocab_size:
        raise ConfigError(
            f"{folder} has {engine.vocab_size} logits, {reference.path} "
            f"{reference.config.vocab_size}: not the same model."
        )
    own = load_tokenizer(reference.path)
    if own is None or opened.tokenizer is None:
        return
    for rows in tokens.values():
        for row in rows.tolist():
            if own.decode(row) != opened.tokenizer.decode(row):
                raise ConfigError(f"{folder} has another tokenizer than {reference.path}.")


def _compare(
    tally: Tally,
    rows: Ids,
    begin: int,
    hidden: Stream,
    engine: Engine,
    head: Run,
    progress: Progress,
) -> None:
    """Step the engine over `rows`, as many at once as it has slots, against `hidden`'s logits.

    `begin` is the place of the first row in `hidden`.
    """
    step = engine.limits.max_batch_size
    for start in range(0, len(rows), step):
        batch = rows[start : start + step]
        stream = hidden.rows(list(range(begin + start, begin + start + len(batch))))
        slots = [engine.allocate() for _ in batch]
        windows = np.arange(start, start + len(batch))
        for place in range(batch.shape[1] - 1):
            feeds = [Feed(slot, [int(row[place])]) for slot, row in zip(slots, batch, strict=True)]
            found = engine.step(feeds)
            tally.add(head(stream[:, place]), found, batch[:, place + 1], windows)
            progress(len(batch))
        for slot in slots:
            engine.release(slot)
