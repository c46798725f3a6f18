"""Muon for matrices, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MATRIX_LR = 0.02
OTHER_LR = 0.003
MOMENTUM = 0.95
WEIGHT_DECAY = 0.01
NUM_STEPS = 5


def orthogonalize(gradient: Tensor) -> Tensor:
    """Returns the nearest orthogonal matrix, approximately, by a quintic Newton-Schulz iteration.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).
    """
    is_tall = gradient.shape[0] > gradient.shape[1]
    x: Tensor = gradient.T if is_tall else gradient
    x = x / (torch.linalg.norm(x) + 1e-7)
    for _ in range(NUM_STEPS):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if is_tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalized, matrix by matrix."""

    def __init__(self, matrices: Iterable[Tensor]) -> None:
        """Starts with no momentum."""
        super().__init__(matrices, {"lr": MATRIX_LR})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Moves every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                state = self.state[matrix]
                momentum = state.setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - MOMENTUM)
                update = orthogonalize(matrix.grad.lerp(momentum, MOMENTUM))
                scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
                matrix.mul_(1 - group["lr"] * WEIGHT_DECAY)
                matrix.add_(update, alpha=-group["lr"] * scale)


def optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Returns Muon over the layers' matrices and AdamW over embedding, head and vectors."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and ".layers." in name
        (matrices if is_matrix else others).append(parameter)
    adamw = torch.optim.AdamW(others, lr=OTHER_LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [Muon(matrices), adamw]
