"""`nemotrt inspect ENGINE --layers`: what the compiler made of the graph, and what follows."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from nemotrt.engines.artefact.manifest import Manifest
from nemotrt.engines.backends.tensorrt.compile.layer_check import (
    LAYERS_FILE,
    PROFILES,
    check_layers,
)
from nemotrt.engines.backends.tensorrt.compile.layer_report import LayerReport, read_report
from nemotrt.engines.model.hf_config import read_model_config
from nemotrt.errors import ConfigError
from nemotrt.files.text_file import read_json


def print_layers(folder: Path, manifest: Manifest, *, as_json: bool = False) -> None:
    """Print every kernel of both profiles and the summary; as JSON with all their tensors.

    Raises:
        ConfigError: the engine has no layer report.
    """
    path = folder / LAYERS_FILE
    if not path.is_file():
        raise ConfigError(f"{folder} has no {LAYERS_FILE}: only TensorRT plans have one.")
    report = read_report(read_json(path))
    stored = {name: weight.dtype for name, weight in manifest.weights.items()}
    found = check_layers(report, read_model_config(folder), stored, manifest.precision)
    if as_json:
        click.echo(json.dumps({**report.as_json(), "check": asdict(found)}))
        return
    for profile, word in PROFILES.items():
        _print_kernels(report, profile, word)
    for profile, word in PROFILES.items():
        sizes = report.activation_bytes
        size = f"{sizes[profile] / 2**20:.0f} MiB" if profile < len(sizes) else "unknown MiB"
        click.echo(
            f"{word}: {found.num_kernels[word]} kernels, {size} of activations, "
            f"{found.fused_attention[word]} fused attention, {found.cache_updates[word]} caches "
            f"written in place, {found.float32_states[word]} SSM states in float32"
        )
        for how, count in sorted(found.counts(word).items()):
            click.echo(f"  {count:4} linears: {how}")
        for kind, count in _by_type(report, profile):
            click.echo(f"  {count:4} kernels write {kind}")
    click.echo(f"faults: {'; '.join(found.faults) or 'none'}")


def _by_type(report: LayerReport, profile: int) -> list[tuple[str, int]]:
    """Return what a profile's kernels write -> how many of them do, the most frequent first."""
    written = Counter(
        "+".join(dict.fromkeys(tensor.dtype for tensor in layer.outputs)) or "nothing"
        for layer in report.kernels(profile)
    )
    return written.most_common()


def _print_kernels(report: LayerReport, profile: int, word: str) -> None:
    """Print a profile's kernels, one per line: kind, types in and out, nodes."""
    for number, layer in enumerate(report.kernels(profile)):
        types = [
            "+".join(dict.fromkeys(tensor.dtype for tensor in side))
            for side in (layer.inputs, layer.outputs)
        ]
        nodes = ", ".join(layer.nodes[:3]) + (", ..." if len(layer.nodes) > 3 else "")
        click.echo(f"{word} {number:4} {layer.kind:15} {' -> '.join(types):32} {nodes}")
