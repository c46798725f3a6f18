"""What is kept of rows of state, of any sizes and layouts, and the memory that it lies in."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nemotrt.engines.backends.protocol.own_runtime import StateLayout
from nemotrt.engines.backends.tensorrt.device.cuda import Cuda, bytes_at
from nemotrt.engines.backends.tensorrt.device.page_locked import PageLocked
from nemotrt.engines.backends.tensorrt.run.kept_rows import KeptRows
from nemotrt.engines.backends.tensorrt.run.state_tensors import StateTensor
from nemotrt.engines.runtime.kept_state import PIECE_TOKENS, first_tokens, last_tokens
from support import cuda_stand_in


@given(st.data(), st.sampled_from(StateLayout), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_row_comes_back_as_it_was(
    data: st.DataObject, layout: StateLayout, is_early: bool
) -> None:
    """Any sizes, numbers, phases, cuts and halves, into any row."""
    api = cuda_stand_in.Cuda(is_early=is_early)
    cuda, num_rows = Cuda(api), 3
    sizes, few = st.sampled_from([1, 2, 4]), st.integers(1, 3)
    heads, capacity, depth = data.draw(few), data.draw(st.integers(1, 600)), data.draw(few)
    shapes = {"conv": ((data.draw(few), 3), data.draw(sizes)), "ssm": ((2, data.draw(few)), 4)}
    shapes = dict(list(shapes.items())[: data.draw(st.integers(0, 2))])
    shapes |= {f"{x}_cache": ((heads, capacity, depth), data.draw(sizes)) for x in "kv"}
    layers = data.draw(few)
    tensors = [StateTensor(k, n, *shapes[k]) for n in range(layers) for k in shapes]
    rows = KeptRows(cuda, tensors, num_rows, layout, layout.scratch_rows(num_rows, 4))
    for _ in range(data.draw(st.integers(0, 5))):
        first = data.draw(st.integers(0, num_rows - 1))
        some = range(first, data.draw(st.integers(first + 1, num_rows)))
        rows.bindings(some, is_prompt=False)
        rows.written(some, is_prompt=False)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))

    def fill(row: int, *, only_fixed: bool = False) -> dict[str, np.ndarray]:
        """Enqueue other numbers for a row, as a step would; return them."""
        found = {}
        for tensor in tensors:
            if only_fixed and tensor.is_cache:
                continue
            values = random.integers(0, 256, tensor.row_bytes).astype(np.uint8)
            if tensor.item_bytes == 4:  # float16 holds these
                values = random.integers(-9, 9, tensor.row).astype(np.float32).view(np.uint8)
            pinned = cuda.host_array((tensor.row_bytes,), np.uint8)
            pinned[:] = found[tensor.name] = values.reshape(-1)
            cuda.to_device(rows.address(tensor, row, rows.phase[row]), pinned)
        return found

    source, target = data.draw(st.permutations(range(num_rows)))[:2]
    held = data.draw(st.integers(0, capacity))
    start = data.draw(st.integers(0, held))
    was = fill(source)
    before, saved = rows.read(source, 0, start), rows.read(source, start, held)
    fill(source, only_fixed=True)  # a step
    caches = (*before.caches, *saved.caches)
    assert all(piece.num_tokens <= PIECE_TOKENS for piece in caches)
    for at in data.draw(st.lists(st.integers(0, held), max_size=2)):
        caches = (*first_tokens(caches, at), *last_tokens(caches, at))
    assert sum(piece.num_tokens for piece in caches) == held
    fixed = saved.fixed.halved() if data.draw(st.booleans()) else saved.fixed
    del before, saved  # what nobody holds is written over
    rows.clear(source, capacity)
    rows.clear(target, capacity)
    rows.write(target, fixed, caches)
    del fixed, caches
    rows.read(source, 0, capacity)
    rows.bindings(range(target, target + 1), is_prompt=False)
    cuda.synchronize()
    for tensor in tensors:
        raw = bytes_at(rows.address(tensor, target, rows.phase[target]), tensor.row_bytes)
        wanted = was[tensor.name].copy()
        if tensor.is_cache:
            by_token = wanted.reshape(heads, capacity, -1)
            by_token[:, held:] = 0
        np.testing.assert_array_equal(raw, wanted)
    cuda.close()
    assert not api.host and not api.device


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=40))
@settings(max_examples=60, deadline=None)
def test_memory_is_locked_for_what_is_held_and_used_again(turns: list[tuple[int, bool]]) -> None:
    api = cuda_stand_in.Cuda()
    cuda = Cuda(api)
    memory = PageLocked(cuda, cuda.another_stream())
    held: list[np.ndarray] = []
    most = 0
    for size, is_freed in turns:
        if is_freed and held:
            held.pop(size % len(held))
            continue
        number = len(held)
        piece = memory.take(3 * size)
        piece[...] = number
        held.append(piece.view(np.int8).reshape(3, size)[1:])  # a part keeps the whole
        most = max(most, sum(3 * part.shape[1] for part in held))
        assert memory.num_bytes == sum(map(len, api.host.values())) <= most
        del piece
    places = sorted((part.ctypes.data, part.nbytes) for part in held)
    for (first, size), (second, _) in itertools.pairwise(places):
        assert first + size <= second or not size
    held.clear()
    before = memory.num_bytes
    again = [memory.take(size) for size, free in [*memory._free.items()] for _ in [*free]]
    assert memory.num_bytes == before == sum(map(len, again))
    cuda.close()
