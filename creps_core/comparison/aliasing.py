"""Aliasing: the power of detail too fine for an image's size that folds into it.

Images of n and of N = m (n - 1) + 1 pixels per side have samples in common; the first and last lie on the edges of the
frame. In the basis of the DCT-I, which continues an image mirrored at its edges, the larger image is

    x_N[j] = sum over k of c[k] cos(pi k j / (N - 1)),   k = 0 .. N - 1, and likewise along the other axis.

The smaller image can represent the frequencies k < n - 1, below its Nyquist frequency. If it is sampled without a
filter, every higher frequency appears as one of those. The alias is therefore the difference between the smaller image
and L x_N, the larger image restricted to the frequencies k < n - 1, at the common samples:

    leak(n) = mean of (x_n - L x_N)^2,   aliasing(n) = 10 log10(leak(n) / variance of x_N)   in dB, over all channels.

0 dB: as much power as all detail; minus infinity: none. CREPS samples without a filter, like a camera without one:
everything it draws finer than the pixels is aliased. `render`'s supersample is such a filter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_ROWS = 1024  # rows transformed at a time


class Aliasing:
    """Collects images of latents at several sizes and computes their aliasing, see the module. `add` may be passed to
    `scale_consistency` as `on_image`."""

    def __init__(self, sizes: Sequence[int]):
        """
        Args:
            sizes: pixels per side, ascending; each less one divides the largest less one.

        Raises:
            ValueError: a size less one does not divide the largest less one, or there are fewer than two sizes.
        """
        self.sizes: list[int] = list(sizes)
        if len(self.sizes) < 2 or any((self.sizes[-1] - 1) % (n - 1) or n < 3 for n in self.sizes):
            raise ValueError(f"sizes must be two or more, each less one a divisor of the largest less one, not {sizes}")
        self._small: dict[int, Tensor] = {}
        self._leaks: dict[int, list[float]] = {n: [] for n in self.sizes[:-1]}
        self._variances: list[float] = []

    def add(self, size: int, image: Tensor) -> None:
        """Add an image [1, C, size, size] of the current latent; that of the largest size completes the latent."""
        if size != self.sizes[-1]:
            self._small[size] = image.float().cpu()
            return
        most = self.sizes[-2]  # frequencies that the smaller sizes can represent
        spectrum = _cosines(_cosines(image[0].float(), most).mT, most).mT
        self._variances.append(image.double().var((-2, -1), correction=0).mean().item())
        for n, small in self._small.items():
            below = torch.zeros(*spectrum.shape[:-2], n, n)
            below[..., : n - 1, : n - 1] = spectrum[..., : n - 1, : n - 1].cpu()
            # Transformed back at n samples, with the same coefficients.
            band_limited = _cosines(_cosines(below, n, back=True).mT, n, back=True).mT
            self._leaks[n].append((small[0] - band_limited).double().square().mean().item())
        self._small.clear()

    def decibels(self) -> dict[int, float]:
        """aliasing(n) over all latents, by size n, without the largest."""
        variance = sum(self._variances)
        return {n: _decibels(sum(leaks), variance) for n, leaks in self._leaks.items()}


def _decibels(part: float, whole: float) -> float:
    return 10 * math.log10(part / whole) if part and whole else -math.inf


def _cosines(values: Tensor, keep: int, *, back: bool = False) -> Tensor:
    """DCT-I along the last axis of [..., N], the first `keep` coefficients; with `back` the inverse, `keep` values."""
    n = values.shape[-1]
    out = values.new_empty(*values.shape[:-1], keep)
    flat, result = values.reshape(-1, n), out.view(-1, keep)
    for start in range(0, len(flat), _ROWS):
        rows = flat[start : start + _ROWS]
        if back:  # a sum of cosines is the transform of an even sequence, whose inner terms count twice
            rows = torch.cat([rows[:, :1], rows[:, 1:-1] / 2, rows[:, -1:]], 1)
        found = torch.fft.rfft(torch.cat([rows, rows[:, 1:-1].flip(1)], 1)).real
        if not back:
            found = found / (n - 1)
            found[:, 0] /= 2
            found[:, -1] /= 2
        result[start : start + _ROWS] = found[:, :keep]
    return out
