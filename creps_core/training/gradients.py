"""From gradients to a step of the optimiser, without a look at the host."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Skips:
    """Counts the steps that a network skipped, on the device."""

    def __init__(self, device: torch.device):
        self._counts = torch.zeros(3, device=device)  # in all, in a row up to now, and the longest such row

    @torch.no_grad()
    def count(self, bad: Tensor) -> None:
        """`bad` is 1 if a step is skipped, 0 if not."""
        total, row, longest = self._counts.unbind()
        row = (row + 1) * bad
        self._counts.copy_(torch.stack((total + bad, row, longest.maximum(row))))

    @property
    def total(self) -> int:
        """Steps skipped. Waits for the device."""
        return int(self._counts[0])

    @property
    def longest(self) -> int:
        """The most in a row. Waits for the device."""
        return int(self._counts[2])


def clean(gradients: list[Tensor]) -> None:
    """The authors' clean-up, in place: nan -> 0, +-inf -> +-1e5."""
    for gradient in gradients:
        torch.nan_to_num(gradient, nan=0.0, posinf=1e5, neginf=-1e5, out=gradient)


def not_finite(tensors: Sequence[Tensor]) -> Tensor:
    """1.0 if any value of any tensor is not finite, else 0.0; stays on the device."""
    norms = torch._foreach_norm(list(tensors), math.inf)  # pyright: ignore[reportPrivateImportUsage]
    largest = torch.stack(norms)
    return largest.isfinite().all().logical_not().float()


def added(total: Tensor | None, gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """The sum of two gradients, as the parameter lies in memory: fused optimisers go by addresses."""
    if gradient is None:
        return total
    if total is not None:
        gradient = total + gradient
    if gradient.stride() != parameter.stride():
        gradient = torch.empty_like(parameter).copy_(gradient)
    return gradient


def adam(parameters: dict[str, nn.Parameter], lr: float, interval: int) -> torch.optim.Adam:
    """Adam, with its rates adjusted for the extra steps of lazy regularisation (StyleGAN2, appendix B)."""
    ratio = interval / (interval + 1) if interval else 1.0
    types = {p.device.type for p in parameters.values()}
    return torch.optim.Adam(
        list(parameters.values()),
        lr=lr * ratio,
        betas=(0.0, 0.99**ratio),
        eps=1e-8,
        fused=types <= {"cpu", "cuda"},  # other devices may lack it
        capturable=types == {"cuda"},
    )
