"""Stands in for NVRTC, as cuda.bindings.nvrtc speaks it."""

# ruff: noqa: N802, N803  (the names are those of the API)

from typing import Any, ClassVar


class Nvrtc:
    """Compiles anything where `status` is 0, else nothing; the sources are of one of SETS."""

    SETS: ClassVar = {b"mamba.cu": b"causal_conv.h", b"sampler.cu": b"choose.h"}

    def __init__(self, status: int) -> None:
        self.status = status
        self.num_compiled = 0
        self.is_destroyed = False

    def nvrtcVersion(self) -> tuple[int, int, int]:
        return 0, 13, 5

    def nvrtcCreateProgram(
        self,
        src: bytes,
        name: bytes,
        numHeaders: int,
        headers: list[bytes],
        includeNames: Any,
    ) -> tuple[int, str]:
        header = self.SETS[name]
        assert numHeaders == len(headers) == len(includeNames) and header in includeNames
        assert b'#include "%s"' % header in src
        return 0, "program"

    def nvrtcCompileProgram(
        self,
        prog: str,
        numOptions: int,
        options: list[bytes],
    ) -> tuple[int]:
        assert numOptions == len(options) and b"--gpu-architecture=sm_90" in options
        self.num_compiled += 1
        return (self.status,)

    def nvrtcGetProgramLogSize(self, prog: str) -> tuple[int, int]:
        return 0, 16

    def nvrtcGetProgramLog(self, prog: str, log: bytearray) -> tuple[int]:
        log[:] = b"line 7: a fault\0"
        return (0,)

    def nvrtcGetCUBINSize(self, prog: str) -> tuple[int, int]:
        return 0, 5

    def nvrtcGetCUBIN(self, prog: str, cubin: bytearray) -> tuple[int]:
        cubin[:] = b"cubin"
        return (0,)

    def nvrtcDestroyProgram(self, prog: str) -> tuple[int]:
        self.is_destroyed = True
        return (0,)
