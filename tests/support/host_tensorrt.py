"""Stands in for the `tensorrt` package of a GPU host: the compiler of TensorRT for RTX inside.

It takes no target, as ordinary TensorRT does (it compiles for the GPU that it finds: 8.9 here, for
FP8), logs no layers, and answers through EngineInspector, which needs a GPU there.
"""

import textwrap
from pathlib import Path

VERSION = "11.1.0"
MODULE = '''
    """What our compiler process uses of ordinary TensorRT."""
    import tensorrt_rtx_bindings as _rtx
    from tensorrt_rtx_bindings import (
        ILogger, IProgressMonitor, LayerInformationFormat, MemoryPoolType,
        NetworkDefinitionCreationFlag, OnnxParser, ProfilingVerbosity,
    )

    RTX_ONLY = ("num_compute_capabilities", "set_compute_capability")
    _seen = {}


    class _Log(ILogger):
        """Takes the layers out of what the user's logger hears."""

        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def log(self, severity, message):
            if "Layers:\\n" in message:
                body = message.partition("Layers:\\n")[2]
                _seen["layers"] = [x for x in body.splitlines() if x.startswith("Name: ")]
            elif message.startswith("Total Activation Memory: "):
                size = int(message.removeprefix("Total Activation Memory: ").split()[0])
                _seen.setdefault("bytes", []).append(size)
            else:
                self.inner.log(severity, message)


    class _Config:
        """A builder's config, without what only TensorRT for RTX has."""

        def __init__(self, real):
            object.__setattr__(self, "real", real)

        def __getattr__(self, name):
            assert name not in RTX_ONLY, name
            return getattr(self.real, name)

        def __setattr__(self, name, value):
            assert name not in RTX_ONLY, name
            setattr(self.real, name, value)


    class Builder:
        def __init__(self, logger):
            self.log = _Log(logger)
            self.real = _rtx.Builder(self.log)

        def create_network(self, flags=0):
            return self.real.create_network(flags)

        def create_builder_config(self):
            return _Config(self.real.create_builder_config())

        def create_optimization_profile(self):
            return self.real.create_optimization_profile()

        def build_serialized_network(self, network, config):
            config.real.num_compute_capabilities = 1
            config.real.set_compute_capability(_rtx.ComputeCapability.SM89, 0)
            return self.real.build_serialized_network(network, config.real)


    class Runtime:
        def __init__(self, logger):
            assert isinstance(logger, ILogger)

        def deserialize_cuda_engine(self, serialized_engine):
            assert len(memoryview(serialized_engine)) > 50_000
            return _Engine()


    class _Engine:
        num_optimization_profiles = 2

        def get_device_memory_size_for_profile_v2(self, profile_index):
            return _seen["bytes"][profile_index]

        def create_engine_inspector(self):
            return _Inspector()


    class _Inspector:
        def get_engine_information(self, format):
            assert format == LayerInformationFormat.ONELINE
            import re

            lines = [re.sub(r"Constants: .*?, Outputs", "Outputs", x) for x in _seen["layers"]]
            return "Layers:\\n" + "\\n".join(lines) + "\\n\\nBindings:\\ninput_ids\\nlogits\\n"
'''


def write_package(folder: Path, version: str = VERSION) -> Path:
    """Write the package and its metadata to `folder`, which goes onto the module path."""
    (folder / "tensorrt.py").write_text(textwrap.dedent(MODULE))
    info = folder / f"tensorrt-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt\nVersion: {version}\n")
    return folder
