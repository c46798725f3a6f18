"""Cloud machines by their providers' names: which GPUs they have, and what stands beside them.

No price ships: it changes by region and by month, so a user gives it.
"""

from functools import cache
from importlib import resources

from pydantic import Field, PositiveFloat, PositiveInt

from nemotrt.files.model_file import Strict, yaml_model

INSTANCE_FOLDER = resources.files("nemotrt.profiles.hardware") / "instances"


class Machine(Strict):
    """What holds the GPUs of one kind; a user's own profile of a GPU may have it too."""

    name: str
    num_gpus: PositiveInt
    vcpus: PositiveInt | None = None
    ram_gib: PositiveFloat | None = None
    disk_gb: PositiveFloat | None = None  # local to it
    usd_per_hour: PositiveFloat | None = None  # of the whole machine


class _Instance(Strict):
    gpu: str
    num_gpus: PositiveInt
    vcpus: PositiveInt
    ram_gib: PositiveFloat
    disk_gb: PositiveFloat | None = None


class _Provider(Strict):
    source: str = Field(min_length=1)
    instances: dict[str, _Instance]


@cache
def instances() -> dict[str, tuple[str, Machine]]:
    """Return the GPU's name and the machine of every instance, by its name in small letters."""
    found = {}
    for path in sorted(INSTANCE_FOLDER.iterdir(), key=lambda path: path.name):
        provider = yaml_model(_Provider, path.read_text(encoding="utf-8"), path.name)
        for name, instance in provider.instances.items():
            told = instance.model_dump(exclude={"gpu"})
            found[name.lower()] = instance.gpu, Machine(name=name, **told)
    return found
