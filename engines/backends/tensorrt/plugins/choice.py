"""Where a plan's Mamba layers can be plugins."""

from nemotrt.engines.backends.tensorrt.device.kernel_dims import KernelDims
from nemotrt.engines.backends.tensorrt.device.kernel_image import check_compiler
from nemotrt.engines.backends.tensorrt.device.kernel_library import driver
from nemotrt.engines.model.model_config import ModelConfig
from nemotrt.errors import ConfigError, EnvironmentUnfitError
from nemotrt.needs import install


def check_plugins(config: ModelConfig, gpu: str, *, has_local_gpu: bool) -> None:
    """Raise unless a plan with Mamba plugins for the model can be compiled on this machine.

    Args:
        config: the model.
        gpu: the target, as the user named it.
        has_local_gpu: that GPU is in this machine.

    Raises:
        ConfigError: the model has no Mamba layers, or the kernels don't fit its dimensions.
        EnvironmentUnfitError: another machine's GPU, no cuda-python, or nothing compiles kernels.
    """
    if config.mamba is None:
        raise ConfigError(f"{config.model_type} has no Mamba layers; leave out --mamba plugin.")
    KernelDims.of(config.mamba)
    if not has_local_gpu:
        raise EnvironmentUnfitError(
            "--mamba plugin needs ordinary TensorRT on the GPU's own host: TensorRT for RTX, which "
            "compiles ahead of time, has no plugin layer. Build on a host with "
            f"{gpu} ({install('tensorrt')}), or with --mamba native."
        )
    driver()
    check_compiler()
