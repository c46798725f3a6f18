"""What a user may choose of an ONNX Runtime engine."""

from dataclasses import dataclass

from nemotrt.commandline.options import option


@dataclass(frozen=True, slots=True)
class OnnxRuntimeOptions:
    """`is_exact` keeps the activations of int8-wo in float32."""

    is_exact: bool = option(
        False,
        "int8-wo keeps activations in float32 (slower, 4 bytes per weight in memory).",
        "--exact",
    )
