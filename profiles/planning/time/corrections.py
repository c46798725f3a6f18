"""The default corrections, for what was never measured on a device."""

from functools import cache
from importlib import resources

from nemotrt.files.model_file import yaml_model
from nemotrt.profiles.hardware.gpu_profile import Corrections, GpuProfile

DEFAULTS = resources.files("nemotrt.profiles.planning.time") / "default_corrections.yaml"


@cache
def default_corrections() -> Corrections:
    """Return the bands that hold across the GPUs that were measured."""
    return yaml_model(Corrections, DEFAULTS.read_text(), DEFAULTS.name)


def corrections_of(gpu: GpuProfile) -> Corrections:
    """Return the GPU's own corrections, completed by the defaults."""
    return gpu.corrections.over(default_corrections())


def unmeasured(gpu: GpuProfile) -> list[str]:
    """Return the names of the corrections that are defaults for this GPU."""
    return sorted(set(default_corrections().present()) - set(gpu.corrections.present()))
