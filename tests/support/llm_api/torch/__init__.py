"""As much of torch as TensorRT-LLM's side uses: rows of float32, on the standard library alone."""

import array
from typing import Any

float32 = "torch.float32"


class cuda:  # noqa: N801
    """`torch.cuda`, on a machine whose GPU has the compute capability of `capability`, if any."""

    capability: tuple[int, int] | None = None

    @classmethod
    def is_available(cls) -> bool:
        return cls.capability is not None

    @classmethod
    def get_device_capability(cls, device: int) -> tuple[int, int] | None:
        return cls.capability


class Tensor:
    """A tensor [n] or [rows, columns] in float32."""

    def __init__(self, data: bytes, shape: tuple[int, ...]) -> None:
        self.data, self.shape, self.dtype, self.ndim = bytearray(data), shape, float32, len(shape)

    def float(self) -> "Tensor":
        return self

    def cpu(self) -> "Tensor":
        return self

    def contiguous(self) -> "Tensor":
        return self

    def numpy(self) -> "Tensor":
        return self

    def tobytes(self) -> bytes:
        return bytes(self.data)

    def tolist(self) -> list[float]:
        return array.array("f", bytes(self.data)).tolist()

    def __getitem__(self, rows: slice) -> "Tensor":
        size = 4 * self.shape[1]
        start, stop, _ = rows.indices(self.shape[0])
        return Tensor(self.data[start * size : stop * size], (stop - start, self.shape[1]))

    def __setitem__(self, index: int, value: float) -> None:
        self.data[4 * index : 4 * index + 4] = array.array("f", [value]).tobytes()


def zeros(size: int, dtype: Any) -> Tensor:
    assert dtype == float32
    return Tensor(bytes(4 * size), (size,))
