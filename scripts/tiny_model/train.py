"""Trains one model for a given time, with resumable checkpoints."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from muon import optimizers
from networks import LanguageModel
from shapes import CONFIGS

BATCH_TOKENS = 2048
PHASES = ((0.0, 512), (0.6, 1024))  # (share of the time, tokens of a sequence)
WARMUP_STEPS = 40
DECAY_START = 0.5  # share of the time; from here the rate falls linearly to zero
CHECKPOINT_SECONDS = 120
SEED = 0


def rate(step: int, progress: float) -> float:
    """Returns the factor on every learning rate: warm-up, plateau, linear decay."""
    decay = min(1.0, (1 - progress) / (1 - DECAY_START))
    return min(1.0, (step + 1) / WARMUP_STEPS) * max(decay, 0.0)


class Stream:
    """Sequences of the token file, each row of a batch from its own place; one pass, then again."""

    def __init__(self, path: Path) -> None:
        """Opens the token file and shuffles its blocks, alike in every run."""
        self.ids = np.load(path, mmap_mode="r")
        num_blocks = (self.ids.size - 1) // 1024
        self.order = np.random.default_rng(SEED).permutation(num_blocks)

    def batch(self, position: int, length: int) -> tuple[Tensor, Tensor]:
        """Returns inputs and targets, [rows, length], of the blocks from `position` on."""
        blocks = self.order.take(range(position, position + BATCH_TOKENS // 1024), mode="wrap")
        rows = np.stack([self.ids[b * 1024 : b * 1024 + 1025] for b in blocks]).astype(np.int64)
        inputs, targets = torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:])
        return inputs.reshape(-1, length), targets.reshape(-1, length)


def dev_loss(model: LanguageModel, ids: np.ndarray[Any, Any]) -> float:
    """Returns the mean loss, nats a token, over the first 64k dev tokens."""
    rows = torch.from_numpy(ids[: 64 * 1024 + 1].astype(np.int64))
    inputs, targets = rows[:-1].view(-1, 1024), rows[1:].view(-1, 1024)
    with torch.no_grad():
        losses = [
            functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
            for x, y in zip(torch.split(inputs, 4), torch.split(targets, 4), strict=True)
        ]
    return float(torch.stack(losses).mean())


def train(kind: str, cache: Path, budget_s: float, stop_s: float) -> None:
    """Trains model `kind` until `stop_s` of the `budget_s` its schedule is laid out for."""
    torch.manual_seed(SEED)
    model = LanguageModel(CONFIGS[kind])
    optimizer_list = optimizers(model)
    base_rates = [[group["lr"] for group in o.param_groups] for o in optimizer_list]
    path = cache / f"{kind}.pt"
    step, position, elapsed_s = 0, 0, 0.0
    if path.exists():
        saved = torch.load(path, weights_only=False)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizer_list, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        step, position, elapsed_s = saved["step"], saved["position"], saved["elapsed_s"]
    stream, dev = Stream(cache / "train.npy"), np.load(cache / "dev.npy")
    started, saved_at, mean = time.monotonic() - elapsed_s, time.monotonic(), float("nan")
    while True:
        elapsed_s = time.monotonic() - started
        progress = elapsed_s / budget_s
        length = [tokens for share, tokens in PHASES if progress >= share][-1]
        finished = elapsed_s >= min(budget_s, stop_s)
        if finished or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            state = {
                "model": model.state_dict(),
                "optimizers": [o.state_dict() for o in optimizer_list],
                "step": step,
                "position": position,
                "elapsed_s": elapsed_s,
            }
            torch.save(state, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").replace(path)
            held_out = dev_loss(model, dev)
            tokens = position * 1024
            print(f"step {step} {elapsed_s:.0f}s {tokens} tokens dev {held_out:.4f}", flush=True)
            saved_at = time.monotonic()
            if finished:
                return
        for optimizer, bases in zip(optimizer_list, base_rates, strict=True):
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                group["lr"] = base * rate(step, progress)
        inputs, targets = stream.batch(position, length)
        loss = functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        torch.autograd.backward(loss)
        for optimizer in optimizer_list:
            optimizer.step()
            optimizer.zero_grad()
        step, position = step + 1, position + BATCH_TOKENS // 1024
        mean = loss.item() if mean != mean else 0.95 * mean + 0.05 * loss.item()
        if step % 20 == 0:
            print(f"step {step} {elapsed_s:.0f}s loss {mean:.4f}", flush=True)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=sorted(CONFIGS))
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--budget-s", type=float, required=True)
    parser.add_argument("--stop-s", type=float, default=float("inf"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.kind, arguments.cache, arguments.budget_s, arguments.stop_s)


if __name__ == "__main__":
    main()
