"""The limits that the user names in a file of the planner's."""

from pathlib import Path

from pydantic import PositiveInt

from nemotrt.build.limit_options import GivenLimits
from nemotrt.engines.model.numerics import Precision
from nemotrt.errors import ConfigError
from nemotrt.files.model_file import Strict, yaml_model
from nemotrt.files.text_file import read_text
from nemotrt.profiles.hardware.gpu_profile import load_gpu


class LimitsFile(Strict):
    """What `nemotrt plan --write-limits` writes; the first keys say what it was planned for."""

    schema_version: int
    model: str
    gpu: str
    engine: str
    precision: Precision
    kv_dtype: str
    ssm_dtype: str
    tp: PositiveInt
    max_batch_size: PositiveInt
    max_num_tokens: PositiveInt
    max_seq_len: PositiveInt
    memory_utilization: float


def read_limits(path: Path, gpu: str | None, precision: Precision) -> GivenLimits:
    """Return the sequences and the length of a file; the chunk stays the backend's.

    Args:
        path: of a LimitsFile, as YAML.
        gpu: that it must be planned for; None takes any.
        precision: that it must be planned for.

    Raises:
        ConfigError: it is not such a file, or it was planned for something else.
    """
    found = yaml_model(LimitsFile, read_text(path), str(path))
    wanted = {"gpu": load_gpu(gpu).name if gpu else found.gpu, "precision": precision}
    for name, value in wanted.items():
        if getattr(found, name) != value:
            raise ConfigError(f"{path} was planned for {getattr(found, name)}, not for {value}.")
    return GivenLimits(found.max_batch_size, found.max_seq_len)
