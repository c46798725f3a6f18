"""What a user may choose of a TensorRT plan."""

from dataclasses import dataclass
from enum import StrEnum

from nemotrt.commandline.kinds import ABOVE_0
from nemotrt.commandline.options import option
from nemotrt.engines.model.numerics import Precision

PRECISIONS = (
    Precision.BF16,
    Precision.INT8_WO,
    Precision.INT8_SQ,
    Precision.INT4_WO,
    Precision.FP8,
)


class MambaLayers(StrEnum):
    """What a plan's causal convolutions and state-space scans are."""

    NATIVE = "native"  # TensorRT's own layers
    PLUGIN = "plugin"  # two plugins with our kernels; ordinary TensorRT only


@dataclass(frozen=True, slots=True)
class TensorRTOptions:
    """`is_embedded` puts the weights into the plan; 0 `workspace_bytes` leaves that to TensorRT."""

    is_embedded: bool = option(
        False,
        "put the weights into the plan (memory: about three times their size).",
        "--embed-weights",
    )
    workspace_bytes: int = option(
        0,
        "bound the plan's scratch memory.",
        "--workspace-gib",
        kind=ABOVE_0,
        scale=2**30,
        unset="TensorRT's own choice",
    )
    mamba: MambaLayers = option(
        MambaLayers.NATIVE,
        "TensorRT's own Mamba layers, or our plugins (only on the GPU's own host).",
    )

    @property
    def has_plugins(self) -> bool:
        """Whether the plan's Mamba layers are plugins."""
        return self.mamba is MambaLayers.PLUGIN
