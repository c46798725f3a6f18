"""A calibration: what the model's activations look like on sample text, saved for many recipes.

A folder of two files: `calibration.json`, readable, one line of figures a linear, and
`calibration.safetensors` with the amax per channel and the histograms.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.checkpoint.checkpoint import Checkpoint
from nemotrt.engines.checkpoint.lora.merged import open_merged
from nemotrt.engines.checkpoint.lora.merging import Merging
from nemotrt.engines.checkpoint.stored.safetensors_file import TensorRef, read_header
from nemotrt.engines.model.tensor_names import linear_names, of_any_expert
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.files.text_file import read_json_object
from nemotrt.files.writing import writing_folder
from nemotrt.quantize.calibration.observe import NUM_BINS, Observation
from nemotrt.quantize.conversion.layout import Shard, literal

SUMMARY_FILE = "calibration.json"
TENSOR_FILE = "calibration.safetensors"
SCHEMA_VERSION = 1
SAMPLE_BYTES = 256


@dataclass(frozen=True, slots=True)
class Calibration:
    """Observations by name: `...in_proj.weight` for a linear's input, `...k_scale` for a cache.

    The experts of a block share one, `...experts.up_proj.weight`: few texts reach each of them, and
    engines take the largest of their scales for all.
    """

    identity: str  # of the checkpoint
    num_sequences: int
    num_tokens: int
    tokens_digest: str  # of the tokens that it saw
    observations: dict[str, Observation]

    def __getitem__(self, name: str) -> Observation:
        """Return the observation of `name`."""
        try:
            return self.observations[of_any_expert(name)]
        except KeyError:
            raise ArtefactError(
                f"the calibration has nothing on {name}; make it anew: "
                "give --calibration a new folder."
            ) from None


def save_calibration(calibration: Calibration, target: Path) -> None:
    """Write the folder `target`."""
    entries = []
    for name, seen in calibration.observations.items():
        entries.append(literal(f"{name}.channel_amax", "F32", seen.channel_amax))
        entries.append(literal(f"{name}.histogram", "I64", seen.histogram))
    shard = Shard(TENSOR_FILE, tuple(sorted(entries, key=lambda entry: entry.dtype, reverse=True)))
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "checkpoint": calibration.identity,
        "num_sequences": calibration.num_sequences,
        "num_tokens": calibration.num_tokens,
        "tokens_sha256": calibration.tokens_digest,
        "amax": {name: seen.amax for name, seen in calibration.observations.items()},
        "p99.9": {
            name: seen.clip("percentile", 99.9, 0.0)
            for name, seen in calibration.observations.items()
        },
    }
    with writing_folder(target) as folder:
        (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        with (folder / TENSOR_FILE).open("wb") as file:
            file.write(shard.header)
            for entry in shard.entries:
                file.write(entry.content)  # type: ignore[arg-type]


def tokens_digest(tokens: npt.NDArray[np.int64]) -> str:
    """Return a digest of `tokens` [sequences, tokens]."""
    return hashlib.sha256(f"{tokens.shape}".encode() + tokens.astype("<i8").tobytes()).hexdigest()


def identity(checkpoint: Checkpoint) -> str:
    """Return a digest of the layout and of a few bytes of every tensor: new weights change it."""
    digest = hashlib.sha256(checkpoint.fingerprint().encode())
    for name, ref in sorted(checkpoint.tensors.items()):
        digest.update(name.encode())
        digest.update(ref.read(0, min(ref.num_bytes, SAMPLE_BYTES)))
    return digest.hexdigest()


def load_calibration(
    folder: Path, checkpoint: Path, mergings: Sequence[Merging] = ()
) -> Calibration:
    """Return the calibration in `folder`, made for a checkpoint with adapters merged into it.

    Raises:
        ArtefactError: a file is missing or damaged.
        ConfigError: it was made for another checkpoint; give --calibration a new folder.
    """
    try:
        summary = read_json_object(folder / SUMMARY_FILE)
        amaxes = {str(name): float(value) for name, value in summary["amax"].items()}
        made_for = str(summary["checkpoint"])
        sizes = int(summary["num_sequences"]), int(summary["num_tokens"])
        digest = str(summary["tokens_sha256"])
    except (ArtefactError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtefactError(f"{folder} is not a calibration: {error!r}.") from error
    source = open_merged(checkpoint, mergings)
    if made_for != identity(source):
        raise ConfigError(f"the calibration {folder} was made for another checkpoint.")
    refs, _ = read_header(folder / TENSOR_FILE)
    observations = {}
    widths = {of_any_expert(name): source[name].shape[1] for name in linear_names(source.config)}
    for name, amax in amaxes.items():
        width = widths.get(name, source.config.kv_size)
        seen = _read(folder / TENSOR_FILE, refs, name, width)
        if seen.amax != amax:
            raise ArtefactError(
                f"{folder}: {SUMMARY_FILE} says that the amax of {name} is {amax}, "
                f"{TENSOR_FILE} that it is {seen.amax}."
            )
        observations[name] = seen
    return Calibration(made_for, *sizes, digest, observations)


def _read(path: Path, refs: dict[str, TensorRef], name: str, num_channels: int) -> Observation:
    """Return the observation of `name`; raise ArtefactError unless it is one of magnitudes."""
    found = []
    for leaf, dtype, size in (
        ("channel_amax", "F32", num_channels),
        ("histogram", "I64", NUM_BINS),
    ):
        ref = refs.get(f"{name}.{leaf}")
        if ref is None:
            raise ArtefactError(f"{path} has no {name}.{leaf}.")
        values = np.array(ref.map())
        if (ref.dtype, ref.shape) != (dtype, (size,)) or not (
            np.isfinite(values) & (values >= 0)
        ).all():
            raise ArtefactError(f"{path}: {name}.{leaf} is not {size} magnitudes of type {dtype}.")
        found.append(values)
    return Observation(*found)
