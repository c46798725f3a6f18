"""Adapters in memory, as the kernels read them, and of each operation what they add to it."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from nemotrt.engines.backends.native.program.program import OperationKind, Program, round_up
from nemotrt.engines.backends.native.structures import CLora
from nemotrt.engines.checkpoint.lora.adapter import Adapter, LowRank, floats
from nemotrt.errors import ConfigError, unknown_name

NO_ADAPTERS: Mapping[str, Adapter] = MappingProxyType({})
Floats = npt.NDArray[np.float32]


class LoadedAdapters:
    """All adapters of an open engine; they keep what the library points to alive.

    `table` has a row for each operation of the program, with a place for each adapter.
    """

    def __init__(self, adapters: Mapping[str, Adapter], program: Program) -> None:
        """Read every adapter.

        Raises:
            ArtefactError: a tensor holds NaN or infinity.
            ConfigError: an adapter is a DoRA, or changes what no linear of the program is.
        """
        self.names = tuple(adapters)
        self._arrays: list[Floats] = []
        self.table: list[list[CLora]] = []
        if not adapters:
            return
        linears = {
            program.tensors[tensor].name: index
            for index, operation in enumerate(program.operations)
            if operation.kind is OperationKind.LINEAR
            and (tensor := operation.tensors[0]) is not None
        }
        self.table = [[CLora() for _ in adapters] for _ in program.operations]
        for number, (name, adapter) in enumerate(adapters.items()):
            _check(name, adapter, linears)
            for weight, own in adapter.weights.items():
                self.table[linears[weight]][number] = self._load(own)

    @property
    def num_bytes(self) -> int:
        """Memory of all."""
        return sum(array.nbytes for array in self._arrays)

    def number(self, name: str) -> int:
        """Return an adapter's number, counted from 1; ConfigError where there is none."""
        if name not in self.names:
            raise unknown_name("adapter", name, self.names)
        return self.names.index(name) + 1

    def _load(self, own: LowRank) -> CLora:
        """Return one linear's, padded to whole panels; the scale goes into `up`."""
        up = np.ascontiguousarray(floats(own.up).T) * np.float32(own.scale)
        down, up = _padded(floats(own.down)), _padded(up)
        self._arrays += [down, up]
        return CLora(down.ctypes.data, up.ctypes.data, own.rank)


def _padded(values: Floats) -> Floats:
    """Return rows that are padded with zeros to whole panels."""
    found = np.zeros((values.shape[0], round_up(values.shape[1])), np.float32)
    found[:, : values.shape[1]] = values
    return found


def _check(name: str, adapter: Adapter, linears: Mapping[str, int]) -> None:
    """Raise ConfigError for what only a merge can do."""
    if adapter.has_magnitudes:
        raise ConfigError(
            f"adapter {name} is a DoRA, which depends on the whole weight; merge it: "
            f"nemotrt build CHECKPOINT --lora {adapter.path}."
        )
    if others := [weight for weight in adapter.weights if weight not in linears]:
        raise ConfigError(
            f"adapter {name} changes {others[0]}, which is no linear of its own in the engine; "
            f"merge it: nemotrt build CHECKPOINT --lora {adapter.path}."
        )
