"""Where a plan is not of what the checkpoint stores: said, since its figures look the same."""

from collections.abc import Iterator

from nemotrt.engines.model.numerics import NumberFormat
from nemotrt.profiles.planning.answers.deployment import Deployment


def contradictions(deployment: Deployment) -> Iterator[str]:
    """Yield each format of the plan that differs from the checkpoint's own, as a sentence."""
    source, formats = deployment.source, deployment.formats
    name, quantization = deployment.model_name, source.quantization
    if quantization is not None and formats.precision is not quantization.precision:
        yield (
            f"{name} is stored in {quantization.precision} ({quantization.title}), but this plan "
            f"is for {formats.precision}: its weights are not those of the files"
        )
    if source.floats is NumberFormat.FP32 and formats.activation is not NumberFormat.FP32:
        yield (
            f"{name} is stored in fp32; engines run what is not quantized in 16 bits, and so does "
            f"this plan ({formats.precision})"
        )
    if source.kv is not None and formats.kv is not source.kv:
        yield (
            f"the KV cache of {name} is {source.kv} by its config, but this plan has a "
            f"{formats.kv} one"
        )
    if source.ssm is not None and source.model.num_mamba_layers and formats.ssm is not source.ssm:
        yield (
            f"the SSM states of {name} are {source.ssm} by its config, but this plan has "
            f"{formats.ssm} ones"
        )
