"""Perceptual path length in w at the end points, as StyleGAN2's `ppl2_wend`: how far pictures jump when w moves.

    PPL = E[ LPIPS(G(w0), G(lerp(w0, w1, e))) ] / e^2,   w0 = mapping(z0, c), w1 = mapping(z1, c), e = 1e-4

over the pairs between the first and the last percentile. Pictures are reduced by area to 256 pixels, not rounded to 8
bits, and the seeds of pair i are 2i and 2i + 1; the label is that of 2i. LPIPS is the library's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ...common.float32 import float32_products
from ..latents import seeds_to_inputs
from ..rendering import render
from .pieces import Step
from .sets import Generated

EPSILON = 1e-4
SIDE = 256
STEP = "step"
"""The name of the column."""
_DISCARDED = 1, 99  # percentiles
_BATCH = 8  # pairs


class PathLengths:
    """The steps of pairs of seeds."""

    def __init__(self, generated: Generated, lpips: Any, epsilon: float = EPSILON):
        """
        Args:
            generated: whose pictures; their precision is float32 here.
            lpips: takes two batches float32 [N, 3, H, W] of 0..255; see `fidelity.make_lpips`.
            epsilon: of the step.
        """
        self.generated, self.lpips, self.epsilon = generated, lpips, epsilon

    def rows(self, start: int, stop: int, step: Step = lambda done: None) -> dict[str, Tensor]:
        """{"step": float64 [stop - start]}: LPIPS over e^2 of some pairs."""
        parts = []
        for first in range(start, stop, _BATCH):
            parts.append(self._steps(first, min(first + _BATCH, stop)))
            step(first + len(parts[-1]) - start)
        return {STEP: torch.cat(parts)}

    def _steps(self, start: int, stop: int) -> Tensor:
        generated = self.generated
        begin, end = self.ends(start, stop)
        ws = torch.cat([begin, torch.lerp(begin, end, self.epsilon)])
        side = generated.side
        pictures = render(generated.generator, ws, height=side, width=side, precision="float32")
        pictures = (pictures[:, :3].expand(-1, 3, -1, -1) + 1) * 127.5
        if side > SIDE:
            pictures = adaptive_avg_pool2d(pictures, SIDE)
        with torch.no_grad(), float32_products(pictures.device, tf32=False):
            found = self.lpips(*pictures.chunk(2))
        return found.double().flatten().cpu() / self.epsilon**2

    def ends(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """The styles w0 and w1 of some pairs, [N, num_ws, w_dim] each."""
        generated = self.generated
        firsts = [generated.first + 2 * pair for pair in range(start, stop)]
        generator = generated.generator
        device = generator.mapping.w_avg.device
        with generated.drawing_labels():
            z0, c = seeds_to_inputs(generator, firsts)
            z1, _ = seeds_to_inputs(generator, [seed + 1 for seed in firsts])
        c = None if c is None else c.to(device)
        with torch.no_grad():
            return generator.mapping(z0.to(device), c), generator.mapping(z1.to(device), c)


def path_length(steps: Tensor) -> tuple[float, float]:
    """PPL of the steps of pairs, and their standard deviation, without those beyond the first and last percentile."""
    values = steps.numpy()
    low = np.percentile(values, _DISCARDED[0], method="lower")
    high = np.percentile(values, _DISCARDED[1], method="higher")
    kept = values[(values >= low) & (values <= high)]
    return float(kept.mean()), float(kept.std())
