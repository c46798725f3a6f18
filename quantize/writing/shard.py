"""Fills one output shard on all cores, or checks one that an earlier run filled."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np

from nemotrt.engines.checkpoint.lora.merged import MergedRef
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef
from nemotrt.quantize.conversion.convert import (
    chunks,
    convert_rows,
    rows_amax,
    tensor_scale,
)
from nemotrt.quantize.conversion.fp4 import second_scale
from nemotrt.quantize.conversion.layout import (
    Codes,
    Encoded,
    Entry,
    FilePart,
    Linear,
    Scales,
    SecondScale,
    Shard,
)
from nemotrt.quantize.writing.sinks import Checking, MismatchError, Sink, Writing

COPY_BYTES = 1 << 22
MAX_IN_FLIGHT = 64
Progress = Callable[[int], None]  # called with a number of source bytes done


def write_shard(
    source: Path, path: Path, shard: Shard | FilePart, pool: Executor, done: Progress
) -> None:
    """Write `shard` to `path` from the file `source`.

    Raises:
        ArtefactError: a weight holds NaN or infinity, or the source is shorter than it said.
    """
    with _opened(source, os.O_RDONLY) as src, _opened(path, os.O_WRONLY | os.O_CREAT) as dst:
        os.ftruncate(dst, shard.num_bytes)
        _run(src, Writing(dst), shard, pool, done)


def is_shard_whole(
    source: Path, path: Path, shard: Shard | FilePart, pool: Executor, done: Progress
) -> bool:
    """Whether `path` has every byte that writing the shard anew would give."""
    if not path.is_file() or path.stat().st_size != shard.num_bytes:
        return False
    with _opened(source, os.O_RDONLY) as src, _opened(path, os.O_RDONLY) as dst:
        try:
            _run(src, Checking(dst), shard, pool, done)
        except MismatchError:
            return False
    return True


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def _run(src: int, sink: Sink, shard: Shard | FilePart, pool: Executor, done: Progress) -> None:
    """Give every piece of the shard to the pool, in the order of the source."""
    sink.put(0, shard.header)
    scales = {
        entry.content.linear.name: shard.offsets[entry.name]
        for entry in shard.entries
        if isinstance(entry.content, Scales)
    }
    seconds = {
        entry.content.linear.name: (shard.offsets[entry.name], entry.content)
        for entry in shard.entries
        if isinstance(entry.content, SecondScale)
    }
    with _Pieces(pool, done) as pieces:
        for entry in sorted(shard.entries, key=_source_offset):
            offset, content = shard.offsets[entry.name], entry.content
            if isinstance(content, bytes):
                sink.put(offset, content)
            elif isinstance(content, TensorRef):
                _copy(src, content, sink, offset, pieces)
            elif isinstance(content, Codes):
                name = content.linear.name
                _convert(src, content.linear, sink, offset, scales[name], pieces, seconds.get(name))
            elif isinstance(content, Encoded):
                _encode(src, content, sink, offset, pieces)


def _source_offset(entry: Entry) -> int:
    """Return where the entry's data begins in the source; what has none comes first."""
    content = entry.content
    if isinstance(content, TensorRef):
        return content.offset
    if isinstance(content, Encoded):
        return content.source.offset
    return content.linear.source.offset if isinstance(content, Codes) else 0


def _copy(src: int, ref: TensorRef, sink: Sink, offset: int, pieces: "_Pieces") -> None:
    if isinstance(ref, MergedRef):
        row_bytes = ref.num_bytes // ref.shape[0]
        for rows in chunks(ref.shape):
            count, place = (rows.stop - rows.start) * row_bytes, offset + rows.start * row_bytes
            pieces.start(count, _put_rows, ref, rows, sink, place)
        return
    for begin in range(0, ref.num_bytes, COPY_BYTES):
        count = min(COPY_BYTES, ref.num_bytes - begin)
        pieces.start(count, sink.copy, src, ref.offset + begin, offset + begin, count)


def _put_rows(ref: MergedRef, rows: slice, sink: Sink, offset: int) -> None:
    sink.put(offset, np.ascontiguousarray(ref.rows(rows)).view(np.uint8).reshape(-1).data)


def _convert(
    src: int,
    linear: Linear,
    sink: Sink,
    codes: int,
    scales: int,
    pieces: "_Pieces",
    second: tuple[int, SecondScale] | None,
) -> None:
    """Start the chunks of a linear; one scale of all needs a first pass for its own amax."""
    every = list(chunks(linear.source.shape))
    scale = np.float32(1)
    if linear.numbers.is_per_tensor or second is not None:
        amax = linear.amax
        if amax is None:
            amaxes = pieces.pool.map(partial(rows_amax, src, linear), every)
            amax = max(amaxes, default=np.float32(0))
        if second is not None:
            scale, (place, content) = second_scale(amax), second
            stored = np.float32(1) / scale if content.is_inverse else scale
        else:
            scale, place = tensor_scale(amax), scales
            stored = scale * linear.rows[0] if linear.rows.size else scale
        sink.put(place, np.float32(stored).tobytes())
    row_bytes = linear.source.num_bytes // max(1, linear.num_rows)
    for rows in every:
        count = (rows.stop - rows.start) * row_bytes
        pieces.start(count, convert_rows, src, linear, rows, sink.put, codes, scales, scale)


def _encode(src: int, content: Encoded, sink: Sink, offset: int, pieces: "_Pieces") -> None:
    row_bytes = content.source.num_bytes // max(1, content.source.shape[0])
    for rows in chunks(content.source.shape, content.unit):
        count = (rows.stop - rows.start) * row_bytes
        pieces.start(count, content.write, src, rows, sink.put, offset)


class _Pieces:
    """Work in flight: bounded, the first fault stops the rest, leaving waits for all."""

    def __init__(self, pool: Executor, done: Progress) -> None:
        """Run pieces on `pool`, telling `done` the size of each that ends."""
        self.pool = pool
        self.done = done
        self.flight: deque[tuple[Future[None], int]] = deque()

    def start(self, num_bytes: int, work: Callable[..., None], *args: object) -> None:
        """Start a piece of `num_bytes` source bytes, waiting for the oldest if many are going."""
        if len(self.flight) >= MAX_IN_FLIGHT:
            self._finish_oldest()
        self.flight.append((self.pool.submit(work, *args), num_bytes))

    def _finish_oldest(self) -> None:
        future, num_bytes = self.flight.popleft()
        future.result()
        self.done(num_bytes)

    def __enter__(self) -> Self:
        """Return the pieces themselves."""
        return self

    def __exit__(self, kind: object, fault: object, trace: object) -> None:
        """Wait for every piece; after a fault, cancel those that have not started."""
        try:
            while self.flight and kind is None:
                self._finish_oldest()
        finally:
            for future, _ in self.flight:
                if not future.cancel():
                    wait([future])
