"""`nemotrt inspect`: what a folder is, and whether it is whole: an engine or a checkpoint."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from nemotrt.commandline.shared import config_option, json_option
from nemotrt.engines.artefact.executed import ExecutedOn, read_executed
from nemotrt.engines.artefact.manifest import MANIFEST_FILE, Manifest, read_manifest, verify_files
from nemotrt.engines.artefact.options import AS_BUILT, OpenOptions, weight_options
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.readiness import State, check_engine, verdict
from nemotrt.engines.checkpoint.hub.origin import NOT_RECORDED, origin_of
from nemotrt.engines.checkpoint.hub.parameter import CHECKPOINT, offline_option
from nemotrt.errors import ArtefactError, ConfigError, EnvironmentUnfitError


@click.command()
@click.argument("folder", type=CHECKPOINT)
@json_option
@click.option(
    "--source",
    type=CHECKPOINT,
    metavar="CHECKPOINT",
    help="The 16 bit checkpoint that a quantized one came from: compare every tensor with it.",
)
@click.option("--layers", is_flag=True, help="Print what the compiler made of a TensorRT engine.")
@click.option("--no-verify", is_flag=True, help="Skip an engine's checksums.")
@click.option(
    "--here", is_flag=True, help="Exit with code 3 unless the engine opens on this machine."
)
@weight_options
@offline_option
@config_option
def inspect(
    folder: str,
    source: str | None,
    as_json: bool,
    layers: bool,
    no_verify: bool,
    here: bool,
    open_options: OpenOptions,
) -> None:
    """Print what FOLDER is and verify it; it may be a checkpoint's hub id.

    An engine directory: its manifest, and whether it opens here: its files and its weights with
    every SHA-256 checked, and what it needs of the machine. The exit code is 1 if a file or a
    weight is missing or has changed, and 0 if only this machine lacks something. A quantized
    checkpoint: its formats checked against what the engines' loaders demand, and which of them
    load it; with --source, every weight against the error that rounding can make. Any other
    checkpoint: its dimensions, with every tensor's name, type and shape checked. A LoRA adapter:
    its ranks, its linears, and the memory that it takes beside the weights.
    """
    from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
    from nemotrt.engines.checkpoint.lora.summary import is_adapter
    from nemotrt.engines.text.chat.whole import check_texts

    path = checkpoint_folder(folder)
    if is_adapter(path):
        if source is not None or layers or here or open_options != AS_BUILT:
            raise ConfigError(f"{path} is an adapter: leave out all options but --json.")
        _inspect_adapter(path, as_json)
        return
    is_engine = (path / MANIFEST_FILE).is_file() or not (path / "config.json").is_file()
    if source is not None and (is_engine or not is_quantized(path)):
        raise ConfigError(f"--source is for a quantized checkpoint; {path} is none.")
    if layers and not is_engine:
        raise ConfigError(f"--layers is for a TensorRT engine; {path} is none.")
    if not is_engine and (here or open_options != AS_BUILT):
        raise ConfigError(f"--checkpoint, --verify and --here are for an engine; {path} is none.")
    if layers and (here or open_options.checkpoint is not None):
        raise ConfigError(
            "--layers prints the compiler's report: leave out --checkpoint and --here."
        )
    if no_verify and not open_options.trust_seals:
        raise ConfigError("give --verify or --no-verify, not both.")
    if is_engine and not (path / MANIFEST_FILE).is_file():
        raise ArtefactError(
            f"{path} is neither an engine nor a checkpoint: it has no {MANIFEST_FILE} and no "
            "config.json. A container has either where it is mounted."
        )
    if is_engine:
        _inspect_engine(path, open_options, as_json, layers=layers, verify=not no_verify, here=here)
        return
    check_texts(path)
    if is_quantized(path):
        _inspect_quantized(path, source, as_json)
        return
    _inspect_plain(path, as_json)


def _inspect_adapter(folder: Path, as_json: bool) -> None:
    """Print a LoRA adapter."""
    from nemotrt.engines.checkpoint.lora.summary import summary
    from nemotrt.progress import readable_size

    found = summary(folder)
    rows = {
        "kind": found["kind"],
        "base model": found["base_model"] or NOT_RECORDED,
        "ranks": f"{', '.join(map(str, found['ranks']))}, alpha {found['alpha']:g}",
        "linears": f"{found['num_linears']}: {', '.join(found['linears'])}",
        "size": f"{readable_size(found['num_bytes'])}, "
        f"{readable_size(found['memory_bytes'])} beside the weights of an engine",
    }
    _print(found, rows, as_json)


def _inspect_plain(folder: Path, as_json: bool) -> None:
    """Print a checkpoint that is not quantized."""
    from nemotrt.engines.checkpoint.checkpoint import open_checkpoint

    checkpoint, origin = open_checkpoint(folder), origin_of(folder)
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
    from nemotrt.engines.checkpoint.quantized.config import QUANT_CONFIG_FILE, flat_quantization

    return (folder / QUANT_CONFIG_FILE).is_file() or flat_quantization(folder) is not None


def _inspect_quantized(folder: Path, source: str | None, as_json: bool) -> None:
    """Check a quantized checkpoint against the loaders' contracts; raise if it breaks one."""
    from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
    from nemotrt.engines.model.hf_config import read_model_config
    from nemotrt.engines.model.tensor_names import linear_names
    from nemotrt.progress import count_progress
    from nemotrt.quantize.contracts.contract import inspect_quantized

    original = checkpoint_folder(source) if source is not None else None
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


def _inspect_engine(
    folder: Path, options: OpenOptions, as_json: bool, *, layers: bool, verify: bool, here: bool
) -> None:
    """Print an engine and what opening it needs; raise if it is not whole, or not for `here`."""
    manifest = read_manifest(folder)
    if layers:
        if verify:
            verify_files(folder, manifest, trust_seals=options.trust_seals)
        registry.find(manifest.backend).print_layers(folder, manifest, as_json=as_json)
        return
    checks = check_engine(folder, manifest, options, verify=verify)
    opens = verdict(checks)
    report = manifest.model_dump(mode="json") | {
        "checks": [dataclasses.asdict(check) for check in checks],
        "opens_here": opens.value,
    }
    executed = read_executed(folder, manifest)
    if executed is not None:
        report["executed_on"] = executed.model_dump(mode="json")
    rows = {f"{check.state:9} {check.name}": check.text for check in checks}
    _print(report, engine_rows(manifest, executed) | {"opens here": opens.value}, as_json)
    if not as_json:
        _print({}, rows, as_json)
    failed = [check for check in checks if check.state is State.NO]
    for check in failed:
        if check.is_own:
            raise ArtefactError(check.text)
    if here and opens is not State.YES:
        why = failed[0].text if failed else "--no-verify leaves its digests unchecked."
        raise EnvironmentUnfitError(f"{folder} is not known to open here: {why}")


def engine_rows(manifest: Manifest, executed: ExecutedOn | None = None) -> dict[str, Any]:
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
        **({"executed with": executed.software} if executed else {}),
        "model": f"{model['model_type']} {model['layers']}",
        "max_batch_size": limits.max_batch_size,
        "max_seq_len": limits.max_seq_len,
        "chunk_tokens": limits.chunk_tokens,
        "built from": f"{checkpoint.path} ({checkpoint.fingerprint[:12]})",
        "origin": str(checkpoint.origin or NOT_RECORDED),
        "weights": _where_weights_are(manifest),
        **plan_rows(manifest),
        "notes": ", ".join(
            f"{name} {value}" for name, value in manifest.options.items() if name not in PLAN_NOTES
        ),
        "tools": ", ".join(f"{name} {number}" for name, number in manifest.tools.items()),
        "size": f"{size / 1e6:.1f} MB",
    }


def _where_weights_are(manifest: Manifest) -> str:
    """Return where the engine's weights come from."""
    if manifest.weights:
        return f"{len(manifest.weights)} bound at load, in the checkpoint"
    backend = registry.get(manifest.backend)
    return "unknown" if backend is None else backend.weights_place


PLAN_NOTES = ("layer_faults", "rebuild_differs_in", "state_layout", "state_layout_reason")


def plan_rows(manifest: Manifest) -> dict[str, Any]:
    """Return what a TensorRT build notes of its plan; nothing for the other backends."""
    options = manifest.options
    if "layer_faults" not in options:
        return {}
    kept = "two sides" if manifest.model["num_mamba_layers"] else "none"
    why = options.get("state_layout_reason")
    return {
        "states": f"{options.get('state_layout', kept)}{f': {why}' if why else ''}",
        "layers": options["layer_faults"] or "as they should be (--layers prints them)",
        "rebuild differs in": options.get("rebuild_differs_in", "unknown"),
    }


def _print(report: dict[str, Any], rows: dict[str, Any], as_json: bool) -> None:
    """Print one JSON object, or a line per row."""
    if as_json:
        click.echo(json.dumps(report, default=str))
        return
    width = max(map(len, rows)) + 1
    for name, value in rows.items():
        click.echo(f"{name:{width}} {value}")
