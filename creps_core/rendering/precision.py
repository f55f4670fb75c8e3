"""The precision that a generator is rendered in: `auto` on a GPU is decided by a comparison of its own images."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..network import Generator

log: logging.Logger = logging.getLogger("CREPS")

GOOD_ENOUGH = 0.995
"""Share of 8-bit values that a faster precision must give within 1 of float32's."""
_SIDE, _IMAGES = 128, 3  # of the images that are compared: their side, their number


class Precision(NamedTuple):
    """Dtypes of the matrix products."""

    lines: torch.dtype  # of the bi-lines
    pixels: torch.dtype  # of the per-pixel stage
    tf32: bool = False  # products of float32 lines may be computed in TF32

    @property
    def name(self) -> str:
        """For the identity of a partial render."""
        return str(self.pixels) if self.lines == self.pixels and not self.tf32 else str(self)

    def __str__(self) -> str:
        lines, pixels = (str(dtype).removeprefix("torch.") for dtype in (self.lines, self.pixels))
        return pixels if lines == pixels and not self.tf32 else f"{pixels}, lines {'TF32' if self.tf32 else lines}"


EXACT = Precision(torch.float32, torch.float32)
HALF = Precision(torch.float16, torch.float16)
FASTER = (
    HALF,
    Precision(torch.float32, torch.float16, True),
    Precision(torch.float32, torch.float32, True),
)
"""Candidates on a GPU, fastest first."""


class PrecisionProbe(NamedTuple):
    """Result of `run_probe`."""

    precision: Precision  # the fastest one that is good enough
    share: float  # of 8-bit values within 1 of float32's, for the first of `FASTER`


def run_probe(generator: Generator, draw: Callable[[Tensor, int, Precision], Tensor]) -> PrecisionProbe:
    """Find the fastest precision that is good enough for a generator.

    Args:
        generator: on its device.
        draw: (ws [N, num_ws, w_dim], side, precision) -> images [N, C, side, side] of about -1..1.
    """
    config, device = generator.config, generator.mapping.w_avg.device
    with torch.no_grad():
        z = torch.randn((_IMAGES, config.z_dim), generator=torch.Generator().manual_seed(0)).to(device)
        c = torch.eye(config.c_dim, device=device)[torch.arange(_IMAGES) % config.c_dim] if config.c_dim else None
        ws = generator.mapping(z, c)
    exact, first = _levels(draw(ws, _SIDE, EXACT)), None
    for precision in FASTER:
        try:
            share = ((_levels(draw(ws, _SIDE, precision)) - exact).abs() <= 1).float().mean().item()
        except OverflowError:
            share = 0.0
        first = share if first is None else first
        if share >= GOOD_ENOUGH:
            break
    else:
        precision = EXACT
    log.info("%s on %s: precision auto is %s (%.2f %% of its values within 1 in float16)", generator.name, device,
             precision, 100 * (first or 0))  # fmt: skip
    return PrecisionProbe(precision, first or 0.0)


def _levels(images: Tensor) -> Tensor:
    return (images * 127.5 + 128).clamp(0, 255).floor()
