"""Page-locked memory in pieces that come and go: what was locked, which takes long, is kept."""

import weakref
from collections import defaultdict

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.tensorrt.device.cuda import Cuda, bytes_at
from nemotrt.engines.backends.tensorrt.device.stream import Stream
from nemotrt.errors import EnvironmentUnfitError, NemotrtError


class PageLocked:
    """Pieces of any size, each of which is free again when nobody holds its array or a view of it.

    No more bytes are locked than were held at once. One stream makes every copy to and from the
    pieces, in order: one may be given back, and taken again, while its copies are due.
    """

    def __init__(self, cuda: Cuda, stream: Stream) -> None:
        """Lock nothing yet; `stream` makes the copies."""
        self._cuda, self._stream = cuda, stream
        self._free: defaultdict[int, list[int]] = defaultdict(list)  # size -> addresses
        self._held = self._most_held = 0
        self.num_bytes = 0  # locked

    def take(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        """Return a piece, which holds anything.

        Raises:
            EnvironmentUnfitError: the host has not that much that can be locked.
        """
        if not num_bytes:
            return np.empty(0, np.uint8)
        most, free = max(self._most_held, self._held + num_bytes), self._free[num_bytes]
        address = free.pop() if free else self._lock(num_bytes, most)
        piece = bytes_at(address, num_bytes)
        self._most_held = most
        self._held += num_bytes
        weakref.finalize(piece, self._give_back, address, num_bytes).atexit = False
        return piece

    def _give_back(self, address: int, num_bytes: int) -> None:
        self._free[num_bytes].append(address)
        self._held -= num_bytes

    def _lock(self, num_bytes: int, most: int) -> int:
        """Return new memory; free pieces go so that no more than `most` bytes are locked."""
        if self.num_bytes + num_bytes > most:
            self._stream.synchronize()  # no copy is due to what goes
        for size, free in self._free.items():
            while free and self.num_bytes + num_bytes > most:
                self._cuda.unlock_host(free.pop())
                self.num_bytes -= size
        try:
            address = self._cuda.lock_host(num_bytes)
        except NemotrtError as error:
            raise EnvironmentUnfitError(
                f"the host can't lock {num_bytes / 2**20:.1f} MiB for a kept state beside the "
                f"{self.num_bytes / 2**30:.2f} GiB of others ({error}); keep fewer with "
                "--prefix-cache-gib."
            ) from error
        self.num_bytes += num_bytes
        return address
