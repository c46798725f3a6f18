"""What a user may choose of a TensorRT plan."""

from dataclasses import dataclass, field
from enum import StrEnum

from nemotrt.engines.backends.protocol.options import flag
from nemotrt.engines.model.numerics import Precision

PRECISIONS = (Precision.BF16, Precision.INT8_WO, Precision.INT8_SQ, Precision.FP8)


class MambaLayers(StrEnum):
    """What a plan's causal convolutions and state-space scans are."""

    NATIVE = "native"  # TensorRT's own layers
    PLUGIN = "plugin"  # two plugins with our kernels; ordinary TensorRT only


@dataclass(frozen=True, slots=True)
class TensorRTOptions:
    """`is_embedded` puts the weights into the plan; 0 `workspace_bytes` leaves that to TensorRT."""

    is_embedded: bool = field(
        default=False,
        metadata=flag(
            "--embed-weights",
            "put the weights into the plan (memory: about three times their size).",
        ),
    )
    workspace_bytes: int = field(
        default=0,
        metadata=flag(
            "--workspace-gib",
            "bound the plan's scratch memory.  [default: TensorRT's own choice]",
            scale=2**30,
        ),
    )
    mamba: MambaLayers = field(
        default=MambaLayers.NATIVE,
        metadata=flag(
            "--mamba", "TensorRT's own Mamba layers, or our plugins (only on the GPU's own host)."
        ),
    )

    @property
    def has_plugins(self) -> bool:
        """Whether the plan's Mamba layers are plugins."""
        return self.mamba is MambaLayers.PLUGIN
