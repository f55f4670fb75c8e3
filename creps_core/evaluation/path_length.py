"""Perceptual path length in w at the end points, as StyleGAN2's `ppl2_wend`: how much images change per step in w.

    PPL = E[ LPIPS(G(w0), G(lerp(w0, w1, e))) ] / e^2,   w0 = mapping(z0, c), w1 = mapping(z1, c), e = 1e-4

over the pairs between the 1st and the 99th percentile. Images are reduced by area to 256 pixels and not rounded to 8
bits. The seeds of pair i are 2i and 2i + 1, its label is that of seed 2i. LPIPS is torch-fidelity's.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..latents import seeds_to_inputs
from ..rendering import render
from .chunks import RowsDone
from .sets import GeneratedImages

EPSILON = 1e-4
LPIPS_SIDE = 256
STEP_COLUMN = "step"
_KEPT = 1, 99  # percentiles
_BATCH = 8  # pairs


class PathSteps:
    """LPIPS of small steps between pairs of seeds."""

    generated: GeneratedImages
    epsilon: float

    def __init__(self, generated: GeneratedImages, lpips: Callable[[Tensor, Tensor], Tensor], epsilon: float = EPSILON):
        """
        Args:
            generated: whose images; rendered in float32 here.
            lpips: returns the N distances of two batches float32 [N, 3, H, W], 0..255; see `fidelity.Lpips`.
            epsilon: size of the step.
        """
        self.generated, self.lpips, self.epsilon = generated, lpips, epsilon

    def rows(self, start: int, stop: int, rows_done: RowsDone = lambda done: None) -> dict[str, Tensor]:
        """{"step": float64 [stop - start]}, LPIPS / e^2 of the pairs `start` to `stop` - 1."""
        parts = []
        for first in range(start, stop, _BATCH):
            parts.append(self._steps(first, min(first + _BATCH, stop)))
            rows_done(first + len(parts[-1]) - start)
        return {STEP_COLUMN: torch.cat(parts)}

    def _steps(self, start: int, stop: int) -> Tensor:
        generated = self.generated
        begin, end = self.ends(start, stop)
        ws = torch.cat([begin, torch.lerp(begin, end, self.epsilon)])
        side = generated.side
        images = render(generated.generator, ws, height=side, width=side, precision="float32")
        images = (images[:, :3].expand(-1, 3, -1, -1) + 1) * 127.5
        if side > LPIPS_SIDE:
            images = adaptive_avg_pool2d(images, LPIPS_SIDE)
        return self.lpips(*images.chunk(2)).double().cpu() / self.epsilon**2

    def ends(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """The styles w0 and w1 of the pairs `start` to `stop` - 1, [N, num_ws, w_dim] each."""
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


def perceptual_path_length(steps: Tensor) -> tuple[float, float]:
    """Mean (the PPL) and standard deviation of the steps between the 1st and the 99th percentile."""
    values = steps.numpy()
    low = np.percentile(values, _KEPT[0], method="lower")
    high = np.percentile(values, _KEPT[1], method="higher")
    kept = values[(values >= low) & (values <= high)]
    return float(kept.mean()), float(kept.std())
