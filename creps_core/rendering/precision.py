"""In which precision a generator is rendered: decided by looking at its own pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ... import kernels
from ..network import Generator

log = logging.getLogger("CREPS")

GOOD_ENOUGH = 0.995
"""Share of 8-bit values that a faster precision must give within 1 of float32's."""
_SIDE, _LOOKS = 128, 3  # of the pictures that are compared; how many


class Precision(NamedTuple):
    """Of the matrix products of the lines, and of the per-pixel stage."""

    lines: torch.dtype
    pixels: torch.dtype
    tf32: bool = False  # let products of float32 lines be computed in TF32

    @property
    def name(self) -> str:
        """For the identity of a picture that is gone on with later."""
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
"""What is tried on a GPU, the fastest first."""


class Look(NamedTuple):
    """What was found by looking."""

    precision: Precision
    share: float  # of 8-bit values within 1 of float32's, for the first of `FASTER`


def explicit(precision: str, device: torch.device) -> Precision | None:
    """What a name asks for; None for `auto` on a GPU, which depends on the generator.

    Raises:
        ValueError: there is no such precision.
    """
    if precision == "auto" and device.type == "cuda":
        return None
    dtype = kernels.resolve_precision(precision, device)
    return Precision(dtype, dtype)


def look(generator: Generator, draw: Callable[[Tensor, int, Precision], Tensor]) -> Look:
    """The fastest precision that is good enough for a generator.

    Args:
        generator: on its device.
        draw: (ws [N, num_ws, w_dim], side, precision) -> pictures [N, C, side, side] of about -1..1.
    """
    config, device = generator.config, generator.mapping.w_avg.device
    with torch.no_grad():
        z = torch.randn((_LOOKS, config.z_dim), generator=torch.Generator().manual_seed(0)).to(device)
        c = torch.eye(config.c_dim, device=device)[torch.arange(_LOOKS) % config.c_dim] if config.c_dim else None
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
    return Look(precision, first or 0.0)


def _levels(pictures: Tensor) -> Tensor:
    return (pictures * 127.5 + 128).clamp(0, 255).floor()
