"""`nemotrt inspect`: what a folder is, and whether it is whole: an engine or a checkpoint."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from nemotrt.commandline import json_option
from nemotrt.engines.artefact.executed import ExecutedOn, read_executed
from nemotrt.engines.artefact.manifest import MANIFEST_FILE, Manifest, read_manifest, verify_files
from nemotrt.engines.backends import registry
from nemotrt.engines.checkpoint.hub.origin import NOT_RECORDED, origin_of
from nemotrt.engines.checkpoint.hub.parameter import CHECKPOINT, offline_option
from nemotrt.errors import ArtefactError, ConfigError


@click.command()
@click.argument("folder", type=CHECKPOINT)
@json_option
@click.option(
    "--source",
    type=CHECKPOINT,
    metavar="CHECKPOINT",
    help="The 16 bit checkpoint that a quantized one came from: compare every tensor with it.",
)
@click.option("--layers", is_flag=True, help="What the compiler made of a TensorRT engine.")
@click.option("--no-verify", is_flag=True, help="Skip an engine's checksums.")
@offline_option
def inspect(folder: str, source: str | None, as_json: bool, layers: bool, no_verify: bool) -> None:
    """Print what FOLDER is and verify it; it may be a checkpoint's hub id.

    An engine directory: its manifest, with every file's SHA-256 checked. A quantized checkpoint:
    its formats checked against what the engines' loaders demand, and which of them load it; with
    --source, every weight against the error that rounding can make. Any other checkpoint: its
    dimensions, with every tensor's name, type and shape checked.
    """
    from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder

    path = checkpoint_folder(folder, quiet=as_json)
    is_engine = (path / MANIFEST_FILE).is_file() or not (path / "config.json").is_file()
    if source is not None and (is_engine or not is_quantized(path)):
        raise ConfigError(f"--source is for a quantized checkpoint; {path} is none.")
    if layers and not is_engine:
        raise ConfigError(f"--layers is for a TensorRT engine; {path} is none.")
    if is_engine:
        manifest = read_manifest(path)
        if not no_verify:
            verify_files(path, manifest)
        if layers:
            registry.find(manifest.backend).print_layers(path, manifest, as_json=as_json)
            return
        executed = read_executed(path, manifest)
        found = manifest.model_dump(mode="json")
        if executed is not None:
            found["executed_on"] = executed.model_dump(mode="json")
        _print(found, engine_rows(manifest, not no_verify, executed), as_json)
        return
    if is_quantized(path):
        _inspect_quantized(path, source, as_json)
        return
    from nemotrt.engines.checkpoint.checkpoint import open_checkpoint

    checkpoint, origin = open_checkpoint(path), origin_of(path)
    found = {
        "schema_version": 1,
        "model_type": checkpoint.config.model_type,
        "layers": checkpoint.config.pattern,
        "num_tensors": len(checkpoint.tensors),
        "num_bytes": sum(ref.num_bytes for ref in checkpoint.tensors.values()),
        "fingerprint": checkpoint.fingerprint(),
        "origin": origin.model_dump() if origin else None,
        "notes": list(checkpoint.notes()),
    }
    notes = "; ".join(checkpoint.notes()) or "none"
    _print(found, found | {"origin": str(origin or NOT_RECORDED), "notes": notes}, as_json)


def is_quantized(folder: Path) -> bool:
    """Whether a checkpoint folder says that its linears are quantized."""
    from nemotrt.engines.checkpoint.quant_config import QUANT_CONFIG_FILE, flat_quantization

    return (folder / QUANT_CONFIG_FILE).is_file() or flat_quantization(folder) is not None


def _inspect_quantized(folder: Path, source: str | None, as_json: bool) -> None:
    """Check a quantized checkpoint against the loaders' contracts; raise if it breaks one."""
    from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
    from nemotrt.engines.model.hf_config import read_model_config
    from nemotrt.engines.model.tensor_names import linear_names
    from nemotrt.progress import count_progress
    from nemotrt.quantize.contracts.contract import inspect_quantized

    original = checkpoint_folder(source, quiet=as_json) if source is not None else None
    total = len(linear_names(read_model_config(folder)))
    with count_progress("comparing, linears", total, quiet=as_json or not original) as progress:
        found = inspect_quantized(folder, original, progress)
    origin = origin_of(folder)
    report = {"schema_version": 1, **dataclasses.asdict(found), "path": str(found.path)}
    report["origin"] = origin.model_dump() if origin else None
    loads = "once mended, loads in" if found.faults else "loads in"
    rows = {
        "format": found.format,
        "quant_algo": found.algo,
        "origin": str(origin or NOT_RECORDED),
        "quantized": f"{found.num_quantized} linears, {found.num_kept} kept",
        **{f"{loads} {engine}": verdict for engine, verdict in found.loaders.items()},
    }
    if found.weight_errors:
        errors = sorted(found.weight_errors.items(), key=lambda item: item[1])
        (_, least), (name, most) = errors[0], errors[-1]
        rows["weight errors"] = f"{least:.4f} .. {most:.4f} of each weight's RMS; worst {name}"
    if found.notes:
        rows["notes"] = "; ".join(found.notes)
    _print(report, rows, as_json)
    if found.faults:
        for fault in found.faults[1:]:
            click.echo(fault, err=True)
        more = f" (and {len(found.faults) - 1} more, above)" if len(found.faults) > 1 else ""
        raise ArtefactError(f"{folder}: {found.faults[0]}{more}")


def engine_rows(
    manifest: Manifest, is_verified: bool, executed: ExecutedOn | None = None
) -> dict[str, Any]:
    """Return what a person wants to know of an engine."""
    size = sum(entry.num_bytes for entry in manifest.files.values())
    limits, model, checkpoint = manifest.limits, manifest.model, manifest.checkpoint
    capability = f" (compute capability {manifest.compute_capability})"
    return {
        "backend": manifest.backend,
        "gpu": f"{manifest.gpu}{capability}" if manifest.gpu else "none",
        "precision": manifest.precision,
        "executed": str(executed)
        if executed
        else "yes"
        if manifest.executed
        else "no: no GPU was there to run it",
        "model": f"{model['model_type']} {model['layers']}",
        "max_batch_size": limits.max_batch_size,
        "max_seq_len": limits.max_seq_len,
        "chunk_tokens": limits.chunk_tokens,
        "checkpoint": f"{checkpoint.path} ({checkpoint.fingerprint[:12]})",
        "origin": str(checkpoint.origin or NOT_RECORDED),
        "weights": _where_weights_are(manifest),
        **plan_rows(manifest),
        "notes": ", ".join(
            f"{name} {value}" for name, value in manifest.options.items() if name not in PLAN_NOTES
        ),
        "tools": ", ".join(f"{name} {number}" for name, number in manifest.tools.items()),
        "files": f"{len(manifest.files)}, {size / 1e6:.1f} MB"
        + (", every SHA-256 verified" if is_verified else ""),
    }


def _where_weights_are(manifest: Manifest) -> str:
    """Return where the engine's weights come from."""
    if manifest.weights:
        return f"{len(manifest.weights)} bound at load"
    backend = registry.get(manifest.backend)
    return "unknown" if backend is None else backend.weights_place


PLAN_NOTES = ("layer_faults", "rebuild_differs_in")


def plan_rows(manifest: Manifest) -> dict[str, Any]:
    """Return what a TensorRT build notes of its plan; nothing for the other backends."""
    options = manifest.options
    if "layer_faults" not in options:
        return {}
    return {
        "layers": options["layer_faults"] or "as they should be (--layers prints them)",
        "rebuild differs in": options.get("rebuild_differs_in", "unknown"),
    }


def _print(report: dict[str, Any], rows: dict[str, Any], as_json: bool) -> None:
    """Print one JSON object, or a line a row."""
    if as_json:
        click.echo(json.dumps(report, default=str))
        return
    width = max(map(len, rows)) + 1
    for name, value in rows.items():
        click.echo(f"{name:{width}} {value}")
