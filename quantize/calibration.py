"""A calibration: what the model's activations look like on sample text, saved for many recipes.

A folder of two files: `calibration.json`, readable, one line of figures a linear, and
`calibration.safetensors` with the amax per channel and the histograms.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nemotrt.engines.artefact import writing_folder
from nemotrt.engines.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.quant_config import QuantAlgo
from nemotrt.engines.safetensors_file import read_header
from nemotrt.engines.tensor_names import blocks
from nemotrt.errors import ArtefactError, ConfigError
from nemotrt.quantize.forward import SequenceEmitter, embed, run_block
from nemotrt.quantize.layout import Shard, literal
from nemotrt.quantize.observe import Floats, Observation

SUMMARY_FILE = "calibration.json"
TENSOR_FILE = "calibration.safetensors"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Calibration:
    """Observations by name: `...in_proj.weight` for a linear's input, `...k_scale` for a cache."""

    fingerprint: str
    num_sequences: int
    num_tokens: int
    observations: dict[str, Observation]

    def __getitem__(self, name: str) -> Observation:
        """Return the observation of `name`."""
        try:
            return self.observations[name]
        except KeyError:
            raise ArtefactError(f"the calibration has nothing on {name}.") from None


class CalibrationEmitter(SequenceEmitter):
    """Taps the input of every linear and what goes into the KV cache."""

    def linear(self, x: str, weight: str) -> str:
        """Tap the input, then multiply."""
        self.tap(weight, x, self.checkpoint[weight].shape[1])
        return super().linear(x, weight)

    def observe_cache(self, what: str, value: str) -> None:
        """Tap keys or values."""
        self.tap(what, value, self.config.kv_size)


def calibrate(
    checkpoint: Checkpoint,
    tokens: npt.NDArray[np.int64],
    progress: Callable[[int], None] = lambda num_blocks: None,
) -> Calibration:
    """Return what `tokens` [sequences, tokens] give in the 16 bit model; no torch is needed.

    Memory is that of the largest block, and 4 bytes x hidden size a token.

    Raises:
        ConfigError: there are no tokens, or the checkpoint is quantized.
        ArtefactError: the model overflows on this text.
    """
    if tokens.size == 0:
        raise ConfigError("the calibration text is shorter than one sequence; give more text.")
    if checkpoint.quant.algo is not QuantAlgo.NONE:
        raise ConfigError(f"{checkpoint.path} is quantized; calibrate the 16 bit checkpoint.")
    observations: dict[str, Observation] = {}
    hidden = embed(checkpoint, tokens)
    for block in blocks(checkpoint.config):
        for taps in run_block(checkpoint, block, hidden, CalibrationEmitter):
            for name, values in taps.items():
                seen = observations.setdefault(name, Observation.empty(values.shape[-1]))
                seen.add(values, name.removesuffix(".weight"))
        progress(1)
    return Calibration(checkpoint.fingerprint(), len(tokens), tokens.size, observations)


def save_calibration(calibration: Calibration, target: Path, *, force: bool = False) -> None:
    """Write the folder `target`."""
    entries = []
    for name, seen in calibration.observations.items():
        entries.append(literal(f"{name}.channel_amax", "F32", seen.channel_amax))
        entries.append(literal(f"{name}.histogram", "I64", seen.histogram))
    shard = Shard(TENSOR_FILE, tuple(sorted(entries, key=lambda entry: entry.dtype, reverse=True)))
    summary: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "checkpoint": calibration.fingerprint,
        "num_sequences": calibration.num_sequences,
        "num_tokens": calibration.num_tokens,
        "amax": {name: seen.amax for name, seen in calibration.observations.items()},
        "p99.9": {
            name: seen.clip("percentile", 99.9, 0.0)
            for name, seen in calibration.observations.items()
        },
    }
    with writing_folder(target, force=force) as folder:
        (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        with (folder / TENSOR_FILE).open("wb") as file:
            file.write(shard.header)
            for entry in shard.entries:
                file.write(entry.content.data)  # type: ignore[union-attr]


def load_calibration(folder: Path, checkpoint: Path) -> Calibration:
    """Return the calibration in `folder`, made for the checkpoint in folder `checkpoint`.

    Raises:
        ArtefactError: a file is missing or damaged.
        ConfigError: it was made for another checkpoint.
    """
    try:
        summary = json.loads((folder / SUMMARY_FILE).read_text(encoding="utf-8"))
        names, fingerprint = list(summary["amax"]), str(summary["checkpoint"])
        sizes = int(summary["num_sequences"]), int(summary["num_tokens"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{folder} is not a calibration: {error!r}.") from error
    if fingerprint != open_checkpoint(checkpoint).fingerprint():
        raise ConfigError(f"the calibration {folder} was made for another checkpoint.")
    refs, _ = read_header(folder / TENSOR_FILE)
    observations = {}
    for name in names:
        try:
            amax, histogram = refs[f"{name}.channel_amax"], refs[f"{name}.histogram"]
        except KeyError as error:
            raise ArtefactError(f"{folder}: {TENSOR_FILE} has no {error}.") from None
        amaxes: Floats = np.array(amax.map())
        observations[name] = Observation(amaxes, np.array(histogram.map()))
    return Calibration(fingerprint, *sizes, observations)
