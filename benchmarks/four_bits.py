"""4 bits beside llama.cpp's: divergence and bytes, on the trained tiny model.

Run: python benchmarks/four_bits.py [--windows 16] [--compensation | --own-text]

llama.cpp's own library quantizes the F16 file of its own converter; ours are GGUF files too. All
are read by our reader and compared on the same windows of the shipped held-out texts, twice: with
the linears alone, embeddings and head being the 16 bit model's, and as they are. A row "at the
bytes of" has a budget that its linears do not take more than those of the other file.

--compensation tells what `--compensate` does instead: the divergence by damping, and the largest
error of a row over the row's norm, which `inspect --source` bounds. --own-text rounds on the first
halves of the held-out texts, in turn, and compares on windows of their second halves.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from nemotrt import quantize
from nemotrt.engines.checkpoint.checkpoint import Checkpoint, open_checkpoint
from nemotrt.engines.checkpoint.gguf.file import read_gguf
from nemotrt.engines.checkpoint.gguf.names import architecture_of, stored_name
from nemotrt.engines.checkpoint.hub.folder import checkpoint_folder
from nemotrt.engines.checkpoint.linear_weight import LinearWeight
from nemotrt.engines.model.tensor_names import linear_names, model_names
from nemotrt.engines.tiny.models import TINY_MODELS
from nemotrt.quantize.calibration import compensate
from nemotrt.quantize.calibration.texts import read_texts, spread_windows, token_windows
from nemotrt.quantize.quality.evaluate import evaluate_checkpoints

sys.path.append(str(Path(__file__).parent / "cpu"))  # not before: profile.py is a standard module's
TINY = TINY_MODELS["tiny"]
GIB = 2**30
OURS = {
    "`int4-wo`": {},
    "`--compensate`": {"compensate": True},
    "`--compensate --drawn 64`": {"compensate": True, "drawn": 64},
    "`--mixed`": {"mixed": True},
    "`--mixed --compensate`": {"mixed": True, "compensate": True},
    "`--mixed --compensate --drawn 64`": {"mixed": True, "compensate": True, "drawn": 64},
}
PEERS = ("Q4_K_M", "Q4_0")


def texts(num_windows: int) -> dict[str, np.ndarray]:
    """Return windows [sequences, tokens] of both held-out texts, spread over each."""
    found = {}
    for name in ("en", "ja"):
        rows = token_windows(TINY, read_texts(TINY.parent / f"heldout/{name}.txt"), 256, 10**9)
        found[name] = spread_windows(rows, num_windows)
    return found


def linear_bytes(file: Path) -> tuple[int, int]:
    """Return what the linears of a GGUF file take, and what all its tensors take."""
    config, tensors = open_checkpoint(TINY).config, read_gguf(file).tensors
    names = [stored_name(architecture_of(config), name) for name in linear_names(config)]
    linears = sum(tensors[found[0]].num_bytes for found in names if found)
    return linears, sum(tensor.num_bytes for tensor in tensors.values())


def divergences(candidate: Checkpoint, tokens: dict[str, np.ndarray]) -> str:
    """Return the cells of each text's mean divergence and its standard error, nats."""
    found = evaluate_checkpoints(open_checkpoint(TINY), candidate, tokens).texts
    cells = []
    for text in found:
        error = text.standard_errors
        bar = f" +- {error.mean_kl_divergence:.4f}" if error else ""
        cells.append(f"{text.mean_kl_divergence:.4f}{bar}")
    return " | ".join(cells)


def row(label: str, file: Path, tokens: dict[str, np.ndarray]) -> str:
    """Return a file's line of the table."""
    exact, whole = open_checkpoint(TINY), open_checkpoint(checkpoint_folder(str(file)))
    names = model_names(exact.config)
    kept = {name: exact[name] for name in (names.embeddings, names.lm_head)}
    alone = replace(whole, tensors=whole.tensors | kept)
    linears, total = linear_bytes(file)
    weights = sum(exact[name].num_bytes // 2 for name in linear_names(exact.config))
    both = f"{divergences(alone, tokens)} | {divergences(whole, tokens)}"
    return f"| {label} | {8 * linears / weights:.2f} | {both} | {total / 1e6:.2f} |"


def table(folder: Path, tokens: dict[str, np.ndarray]) -> None:
    """Print a line for each file."""
    from llama_build import gguf  # type: ignore[import-not-found]

    print(
        "| file | bits a weight of linears | English | Japanese | English, whole | Japanese, whole"
    )
    print("  | whole, MB |\n|---|---|---|---|---|---|---|")
    peers = {kind: gguf(TINY, kind, folder / f"{kind}.gguf") for kind in PEERS}
    for kind, file in peers.items():
        print(row(f"llama.cpp `{kind}`", file, tokens), flush=True)
    files = {}
    for number, (label, how) in enumerate(OURS.items()):
        files[label] = quantize(TINY, folder / f"{number}.gguf", "int4-wo", **how).target
        print(row(label, files[label], tokens), flush=True)
    least = next(iter(files.values()))
    for more in ("", " --compensate", " --compensate --drawn 64"):
        extra = {"compensate": bool(more), "drawn": 64 if "drawn" in more else 0}
        room = linear_bytes(peers["Q4_K_M"])[0] - linear_bytes(least)[0]
        target, budget = folder / f"budget{len(more)}.gguf", (least.stat().st_size + room) / GIB
        quantize(TINY, target, "int4-wo", budget_gib=budget, **extra)
        label = f"`--budget-gib{more}` at the bytes of `Q4_K_M`"
        print(row(label, target, tokens), flush=True)


def own_text(folder: Path, num_windows: int) -> None:
    """Print what a text of the same kind gives, beside the shipped set."""
    from llama_build import gguf

    tokens, parts = {}, []
    for name in ("en", "ja"):
        text = (TINY.parent / f"heldout/{name}.txt").read_text()
        middle = text.index("\n", len(text) // 2) + 1
        rows = token_windows(TINY, [text[middle:]], 256, 10**9)
        tokens[name] = spread_windows(rows, num_windows)
        parts.append([text[middle * i // 12 : middle * (i + 1) // 12] for i in range(12)])
    own = folder / "own.jsonl"
    in_turn = (part for both in zip(*parts, strict=True) for part in both)
    own.write_text("".join(json.dumps({"text": part}) + "\n" for part in in_turn))
    peer = gguf(TINY, "Q4_K_M", folder / "Q4_K_M.gguf")
    print(row("llama.cpp `Q4_K_M`", peer, tokens), flush=True)
    least = quantize(TINY, folder / "least.gguf", "int4-wo").target
    room = linear_bytes(peer)[0] - linear_bytes(least)[0]
    budget = {"budget_gib": (least.stat().st_size + room) / GIB}
    for number, (label, how) in enumerate(
        {
            "at the bytes of `Q4_K_M`, the shipped set": budget,
            "at the bytes of `Q4_K_M`, own text": budget | {"text": own},
            "`--mixed`, own text": {"mixed": True, "text": own},
        }.items()
    ):
        target = folder / f"own{number}.gguf"
        quantize(TINY, target, "int4-wo", compensate=True, **how)
        print(row(label, target, tokens), flush=True)


def compensation(folder: Path, tokens: dict[str, np.ndarray]) -> None:
    """Print the divergence by damping, and the largest error of a row over its norm."""
    exact = open_checkpoint(TINY)
    print("| damping | English | Japanese | errors of rows over their norms |\n|---|---|---|---|")
    for damping in (0.01, 0.03, 0.1, 0.3):
        compensate.DAMPING = damping
        target = folder / str(damping)
        quantize(TINY, target, "int4-wo", compensate=True)
        found, errors = open_checkpoint(target), []
        for name in linear_names(exact.config):
            weight = LinearWeight(found, name)
            if weight.has_int4:
                was = exact.floats(name)
                moved = np.linalg.norm(weight.floats() - was, axis=1)
                errors.append(moved / np.linalg.norm(was, axis=1))
        every = np.concatenate(errors)
        told = f"{every.min():.3f} to {every.max():.3f}"
        print(f"| {damping} | {divergences(found, tokens)} | {told} |", flush=True)


@click.command()
@click.option("--windows", default=16, show_default=True, help="Windows of each text.")
@click.option("--compensation", "alone", is_flag=True, help="What --compensate does, instead.")
@click.option("--own-text", "own", is_flag=True, help="What text of the same kind gives, instead.")
def main(windows: int, *, alone: bool, own: bool) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        if own:
            own_text(Path(folder), windows)
        else:
            (compensation if alone else table)(Path(folder), texts(windows))


if __name__ == "__main__":
    main()
