"""How much detail too fine for a picture's size folds into it: aliasing, as a number.

Pictures of n and of N = m (n - 1) + 1 pixels per side have samples in common, the first and last ones on the edges of
the frame. Seen through cosines that fit the frame (the DCT of kind I, for which a picture goes on mirrored at its
edges), the larger one is

    x_N[j] = sum over k of c[k] cos(pi k j / (N - 1)),   k = 0 .. N - 1, and likewise along the other axis.

The smaller picture can show the waves with k < n - 1, those below its Nyquist frequency. If it is sampled without a
filter, each wave above looks in it like one of those below. So what leaks in is the difference between the smaller
picture and those waves of the larger one that it can show, L x_N, at the samples in common:

    leak(n) = mean of (x_n - L x_N)^2,   aliasing(n) = 10 log10(leak(n) / variance of x_N)   in dB, over all channels.

0 dB: as much as there is detail at all; minus infinity: nothing. A generator without a filter, which CREPS is, has the
aliasing of a camera without one: what it draws that is finer than the pixels. `render`'s supersample is the filter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_ROWS = 1024  # transformed at a time


class Aliasing:
    """Collects the pictures of latents at sizes, see the module; `scale_consistency` may show them to `look`."""

    def __init__(self, sizes: Sequence[int]):
        """
        Args:
            sizes: pixels per side, ascending; each less one divides the largest less one.

        Raises:
            ValueError: they have not all samples of the smaller in common.
        """
        self.sizes = list(sizes)
        if len(self.sizes) < 2 or any((self.sizes[-1] - 1) % (n - 1) or n < 3 for n in self.sizes):
            raise ValueError(f"sizes must be two or more, each less one a divisor of the largest less one, not {sizes}")
        self._small: dict[int, Tensor] = {}
        self._leaks: dict[int, list[float]] = {n: [] for n in self.sizes[:-1]}
        self._variances: list[float] = []

    def look(self, size: int, picture: Tensor) -> None:
        """A picture [1, C, size, size] of the latent that is being looked at; the largest size is its last."""
        if size != self.sizes[-1]:
            self._small[size] = picture.float().cpu()
            return
        most = self.sizes[-2]  # waves that any of them can show
        spectrum = _cosines(_cosines(picture[0].float(), most).mT, most).mT
        self._variances.append(picture.double().var((-2, -1), correction=0).mean().item())
        for n, small in self._small.items():
            below = torch.zeros(*spectrum.shape[:-2], n, n)
            below[..., : n - 1, : n - 1] = spectrum[..., : n - 1, : n - 1].cpu()
            # Back at n samples; the waves keep their heights.
            shown = _cosines(_cosines(below, n, back=True).mT, n, back=True).mT
            self._leaks[n].append((small[0] - shown).double().square().mean().item())
        self._small.clear()

    def decibels(self) -> dict[int, float]:
        """By size but the largest, over all latents: aliasing(n)."""
        variance = sum(self._variances)
        return {n: _decibels(sum(leaks), variance) for n, leaks in self._leaks.items()}


def _decibels(part: float, whole: float) -> float:
    return 10 * math.log10(part / whole) if part and whole else -math.inf


def _cosines(values: Tensor, keep: int, *, back: bool = False) -> Tensor:
    """Heights c of the first `keep` waves along the last axis of [..., N]; `back`: `keep` values of such waves."""
    n = values.shape[-1]
    out = values.new_empty(*values.shape[:-1], keep)
    flat, result = values.reshape(-1, n), out.view(-1, keep)
    for start in range(0, len(flat), _ROWS):
        rows = flat[start : start + _ROWS]
        if back:  # the sum over cosines is the transform of an even sequence, whose inner terms count twice
            rows = torch.cat([rows[:, :1], rows[:, 1:-1] / 2, rows[:, -1:]], 1)
        found = torch.fft.rfft(torch.cat([rows, rows[:, 1:-1].flip(1)], 1)).real
        if not back:
            found = found / (n - 1)
            found[:, 0] /= 2
            found[:, -1] /= 2
        result[start : start + _ROWS] = found[:, :keep]
    return out
