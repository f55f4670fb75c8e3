"""From gradients to a step of Adam, without reading a value on the host."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SkipCounter:
    """Counts the steps that a network skips, on the device."""

    def __init__(self, device: torch.device):
        self._counts = torch.zeros(3, device=device)  # in all; in a row up to now; the longest row

    @torch.no_grad()
    def count(self, skipped: Tensor) -> None:
        """Count a step; `skipped` is 1.0 if it is skipped, else 0.0."""
        total, row, longest = self._counts.unbind()
        row = (row + 1) * skipped
        self._counts.copy_(torch.stack((total + skipped, row, longest.maximum(row))))

    @property
    def total(self) -> int:
        """Steps skipped. Waits for the device."""
        return int(self._counts[0])

    @property
    def longest(self) -> int:
        """The most steps skipped in a row. Waits for the device."""
        return int(self._counts[2])


class NetworkOptimizer:
    """Adam of one network, with the rule for gradients that are not finite.

    Attributes:
        parameters: the trained parameters, by name.
        adam: their optimiser.
        skips: counts the steps skipped.
    """

    parameters: dict[str, nn.Parameter]
    non_finite: str

    def __init__(
        self, parameters: dict[str, nn.Parameter], lr: float, interval: int, non_finite: str, device: torch.device
    ):
        """Create the optimiser.

        Args:
            parameters: by name.
            lr: learning rate.
            interval: of the network's regularisation, see `make_adam`.
            non_finite: "skip" the step, or "clean" the gradients as the authors do.
            device: of the parameters.
        """
        self.parameters, self.non_finite = parameters, non_finite
        self.adam = make_adam(parameters, lr, interval)
        self.skips: SkipCounter = SkipCounter(device)

    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Take a step with these gradients, in the order of the parameters. Whether to skip it, the device decides."""
        for parameter, gradient in zip(self.parameters.values(), gradients, strict=True):
            parameter.grad = gradient
        found = [gradient for gradient in gradients if gradient is not None]
        if self.non_finite == "clean":
            clean_gradients(found)
            self.adam.step()
        else:
            skipped = any_not_finite(found)
            self.skips.count(skipped)
            if self.adam.defaults["fused"]:
                setattr(self.adam, "found_inf", skipped)  # noqa: B010 - as `torch.amp.GradScaler` does
                self.adam.step()
            elif not skipped:
                self.adam.step()
        self.adam.zero_grad(set_to_none=True)


def clean_gradients(gradients: list[Tensor]) -> None:
    """Clean up gradients in place, as the authors do: nan -> 0, +-inf -> +-1e5."""
    for gradient in gradients:
        torch.nan_to_num(gradient, nan=0.0, posinf=1e5, neginf=-1e5, out=gradient)


def any_not_finite(tensors: Sequence[Tensor]) -> Tensor:
    """1.0 if any value of any tensor is not finite, else 0.0; stays on the device."""
    norms = torch._foreach_norm(list(tensors), math.inf)  # pyright: ignore[reportPrivateImportUsage]
    return torch.stack(norms).isfinite().all().logical_not().float()


def add_gradients(total: Tensor | None, gradient: Tensor | None, parameter: Tensor) -> Tensor | None:
    """The sum of two gradients, with the parameter's strides: fused optimisers go by addresses."""
    if gradient is None:
        return total
    if total is not None:
        gradient = total + gradient
    if gradient.stride() != parameter.stride():
        gradient = torch.empty_like(parameter).copy_(gradient)
    return gradient


def make_adam(parameters: dict[str, nn.Parameter], lr: float, interval: int) -> torch.optim.Adam:
    """Adam with its rates adjusted for the extra steps of lazy regularisation (StyleGAN2, appendix B).

    Args:
        parameters: by name.
        lr: learning rate.
        interval: of the network's regularisation, in steps; 0: there is none.
    """
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
