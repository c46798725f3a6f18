"""Measures held-out bits per byte of model folders beside `xz -9` on the same text."""

from __future__ import annotations

import argparse
import lzma
import math
from pathlib import Path

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

WINDOW = 1024  # tokens that the model sees at once, `<s>` included
STRIDE = 512  # new tokens scored by one window; the rest of it is context


def load(folder: Path) -> PreTrainedModel:
    """Returns the model with its bf16 weights in float32 arithmetic, the step not clamped."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for module in model.modules():
        if hasattr(module, "time_step_limit"):  # transformers raises small steps to time_step_min
            setattr(module, "time_step_limit", (0.0, math.inf))  # noqa: B010
    model.train(False)
    return model


def bits_per_byte(folder: Path, text: str) -> float:
    """Returns the model's bits per UTF-8 byte of all of `text`, sliding a window over it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.encode(text, add_special_tokens=False)
    bos = tokenizer.bos_token_id
    model = load(folder)
    nats = 0.0
    done = 0
    while done < len(ids):
        end = min(len(ids), done + (STRIDE if done else WINDOW - 1))
        start = max(0, end - (WINDOW - 1))
        row = torch.tensor([bos, *ids[start:end]])
        with torch.no_grad():
            logits = model(row[None, :-1], use_cache=False).logits[0]
        scored = end - done
        loss = functional.cross_entropy(logits[-scored:], row[-scored:], reduction="sum")
        nats += loss.item()
        done = end
    return nats / math.log(2) / len(text.encode())


def xz_bits_per_byte(text: str) -> float:
    """Returns what `xz -9` needs for `text`, in bits per byte, its container included."""
    data = text.encode()
    packed = lzma.compress(data, format=lzma.FORMAT_XZ, check=lzma.CHECK_CRC64, preset=9)
    return 8 * len(packed) / len(data)


def main() -> None:
    """Prints a table: one row a language, one column a model and one for xz."""
    tiny = Path(__file__).resolve().parents[2] / "engines" / "tiny"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--held-out", type=Path, default=tiny / "heldout")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folders = arguments.folders or [tiny / "nemotron_h", tiny / "qwen3"]
    print("| text | bytes | xz -9 | " + " | ".join(folder.name for folder in folders) + " |")
    print("|---|---|---|" + "---|" * len(folders))
    for path in sorted(arguments.held_out.glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        cells = [path.name, str(len(text.encode())), f"{xz_bits_per_byte(text):.3f}"]
        cells += [f"{bits_per_byte(folder, text):.3f}" for folder in folders]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
