"""`nemotrt build --list`: which GPU takes which precision by which backend, checked how."""

from collections.abc import Iterator
from pathlib import Path

from nemotrt.build.engine_builder import compute_capability
from nemotrt.engines.artefact.executed import read_executed
from nemotrt.engines.artefact.manifest import MANIFEST_FILE, read_manifest
from nemotrt.engines.backends import registry
from nemotrt.engines.backends.protocol.compute_capability import capability_number
from nemotrt.engines.model.numerics import BUILT, Precision
from nemotrt.errors import ArtefactError
from nemotrt.profiles.hardware.gpu_profile import known_gpus


def rows() -> list[dict[str, str]]:
    """Return one row per GPU and precision: what each GPU backend makes of it."""
    precisions = [item for item in BUILT if item is not Precision.FP32]
    return [row(gpu, precision) for gpu in known_gpus() for precision in precisions]


def row(gpu: str, precision: Precision) -> dict[str, str]:
    """Return one row."""
    capability = compute_capability(gpu)
    names = {"gpu": gpu, "compute_capability": capability, "precision": precision.value}
    return names | {
        backend.name: backend.table_cell(capability, precision)
        for backend in registry.backends()
        if not backend.is_cpu
    }


def lines() -> list[str]:
    """Return the table as aligned text, GPUs of one compute capability together, and a legend."""
    merged: dict[tuple[str, ...], list[str]] = {}
    for found in rows():
        rest = tuple(value for name, value in found.items() if name != "gpu")
        merged.setdefault(rest, []).append(found["gpu"])
    table = [[", ".join(gpus), *rest] for rest, gpus in merged.items()]
    table.sort(key=lambda line: capability_number(line[1]))
    cells = [list(rows()[0]), *table]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    legend = {word: how for item in registry.backends() for word, how in item.built_how}
    return [
        *text,
        "",
        *_cpu_lines(),
        *(note for backend in registry.backends() for note in backend.table_notes),
        "",
        *(f"{word}: {how}" for word, how in legend.items()),
        *checked_lines(Path()),
    ]


def checked_lines(folder: Path) -> Iterator[str]:
    """Yield a line for each engine in `folder` that `nemotrt check` found right, where it ran."""
    for path in sorted(folder.glob(f"*/{MANIFEST_FILE}")):
        try:
            manifest = read_manifest(path.parent)
            found = read_executed(path.parent, manifest)
        except (ArtefactError, OSError):  # of a folder that nobody asked for
            continue
        if found:
            name = f"{manifest.gpu or 'cpu'} {manifest.precision} {manifest.backend}"
            yield f"checked, {name}: {found} ({path.parent})"


def _cpu_lines() -> list[str]:
    """Return what each CPU backend builds of any checkpoint."""
    found = []
    for backend in map(registry.find, registry.cpu_names()):
        taken = [item.value for item in BUILT if backend.supports(None, item) is None]
        found.append(f"cpu, {backend.name}: {', '.join(taken)}: {backend.built}")
    return found
