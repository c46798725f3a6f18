"""Makes the Mamba plugins known to TensorRT, in the process that compiles or runs a plan."""

from importlib import import_module
from pathlib import Path
from typing import Any

from nemotrt.engines.artefact.manifest import Manifest
from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims
from nemotrt.engines.backends.tensorrt.device.kernel_image import KERNELS_FILE
from nemotrt.engines.backends.tensorrt.device.kernel_library import KernelLibrary
from nemotrt.engines.backends.tensorrt.graph.options import MambaLayers
from nemotrt.engines.backends.tensorrt.graph.plugin_fields import NAMESPACE, VERSION
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.errors import ArtefactError

LAYERS_MODULE = "nemotrt.engines.backends.tensorrt.plugins.layers"  # imports TensorRT
LIBRARIES: dict[str, KernelLibrary] = {}  # of the plans in this process, by key
CREATORS: list[Any] = []  # TensorRT's registry does not keep them alive


def register(image: Path, key: str) -> None:
    """Register the plugins, and the kernels in `image` for the plans that name `key`."""
    LIBRARIES.setdefault(key, KernelLibrary(image.read_bytes()))
    if CREATORS:
        return
    layers = import_module(LAYERS_MODULE)
    registry = layers.trt.get_plugin_registry()
    for creator in layers.creators(LIBRARIES):
        if not registry.register_creator(creator, NAMESPACE):
            raise RuntimeError(f"TensorRT has another plugin {creator.name} {VERSION} already.")
        CREATORS.append(creator)


def register_plugins(folder: Path, manifest: Manifest) -> None:
    """Register what an engine's plan was compiled with; nothing for TensorRT's own layers.

    Raises:
        ArtefactError: the kernels are those of another version of this package.
    """
    if manifest.options.get("mamba") != MambaLayers.PLUGIN:
        return
    mamba = read_model_config(folder).mamba
    key = str(manifest.options.get("mamba_kernels"))
    if mamba is None or KernelDims.of(mamba).key != key:
        raise ArtefactError(
            f"{folder} was built with the Mamba kernels of another version. Build it again."
        )
    register(folder / KERNELS_FILE, key)
