"""The limits that the user names in a file of the planner's."""

from pathlib import Path

from pydantic import PositiveInt

from nemotrt.build.limit_options import GivenLimits
from nemotrt.engines.model.numerics import NumberFormat, Precision
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
    backend: str
    precision: Precision
    kv_dtype: NumberFormat
    ssm_dtype: NumberFormat
    tp: PositiveInt
    max_batch_size: PositiveInt
    max_num_tokens: PositiveInt
    max_seq_len: PositiveInt
    memory_utilization: float

    def given(self, *, has_chunk: bool) -> GivenLimits:
        """Return the sequences and the length; the chunk too, or it stays the backend's."""
        chunk = min(self.max_num_tokens, self.max_seq_len) if has_chunk else None
        return GivenLimits(self.max_batch_size, self.max_seq_len, chunk)


def read_limits(
    path: Path, gpu: str | None, precision: Precision, backend: str, tp_size: int = 1
) -> LimitsFile:
    """Return a file of limits that was planned for just this.

    Args:
        path: of a LimitsFile, as YAML.
        gpu: that it must be planned for; None takes any.
        precision: that it must be planned for.
        backend: that it must be planned for.
        tp_size: GPUs that it must be planned for.

    Raises:
        ConfigError: it is not such a file, or it was planned for something else.
    """
    found = yaml_model(LimitsFile, read_text(path), str(path))
    wanted = {
        "backend": backend,
        "gpu": load_gpu(gpu).name if gpu else found.gpu,
        "precision": precision,
        "tp": tp_size,
    }
    for name, value in wanted.items():
        if getattr(found, name) != value:
            what = "" if name in ("gpu", "precision") else f"{name} "
            raise ConfigError(
                f"{path} was planned for {what}{getattr(found, name)}, not for {value}."
            )
    return found
