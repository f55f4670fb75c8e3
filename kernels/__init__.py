"""The per-pixel stage behind one door: bi-lines in, pixels out, tile by tile.

`reference.py` is the specification, `tiled.py` the torch path for every device, `onednn.py` the one for bfloat16 on
CPUs that are made for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import onednn, tiled
from .stage import Layer, PixelBlock, PixelStage

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "Layer",
    "PixelBlock",
    "PixelStage",
    "choose",
    "entangle",
    "resolve_precision",
]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Backend:
    """A way to run the per-pixel stage.

    `run(columns, rows, stage, out, *, supersample, tile, dtype, after_tile)` fills `out`; `refuses(device, dtype)`
    is the reason why it cannot run there, or None.
    """

    run: Callable[..., None]
    refuses: Callable[[torch.device, torch.dtype], str | None]


BACKENDS = {"onednn": Backend(onednn.entangle, onednn.refuses), "tiled": Backend(tiled.entangle, tiled.refuses)}


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """`auto | float32 | bfloat16 | float16` -> dtype of the matrix products. `auto` is float32 on every device."""
    if precision == "auto":
        return torch.float32
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {['auto', *PRECISIONS]}, not {precision!r}")
    return PRECISIONS[precision]


def choose(backend: str, device: torch.device, dtype: torch.dtype) -> str:
    """The name of the backend that will run; `auto` takes the first that can.

    Raises:
        ValueError: the backend is unknown, or cannot run there; the message says why.
    """
    if backend == "auto":
        names = list(BACKENDS)
    elif backend in BACKENDS:
        names = [backend]
    else:
        raise ValueError(f"backend must be one of {['auto', *BACKENDS]}, not {backend!r}")
    reasons = []
    for name in names:
        reason = BACKENDS[name].refuses(device, dtype)
        if reason is None:
            return name
        reasons.append(f"{name}: {reason}")
    raise ValueError(f"no backend can run in {dtype} on {device}: {'; '.join(reasons)}")


def entangle(
    columns: Tensor,
    rows: Tensor,
    stage: PixelStage,
    out: Tensor,
    *,
    supersample: int = 1,
    tile: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
    after_tile: Callable[[int], None] = lambda pixels: None,
) -> None:
    """Fill `out` with the picture of a pair of lines.

    Args:
        columns: [L, B, height * supersample, rank] float32, line 0.
        rows: [L, B, width * supersample, rank] float32, line 1.
        stage: weights for one latent (no batch axes).
        out: [C, height, width], any strides, on the device of the lines or on the CPU. A float dtype receives
            values of about -1..1; uint8 receives `x * 127.5 + 128`, clamped to 0..255, fraction cut off.
        supersample: samples per pixel and side; a pixel is their mean.
        tile: (height, width) of a tile in pixels; None for a size that keeps the buffers below 48 MB in all.
        dtype: of the matrix products.
        backend: a name in `BACKENDS`, or `auto`.
        after_tile: called in the calling thread after every tile with its number of pixels; what it raises ends
            the work.
    """
    run = BACKENDS[choose(backend, columns.device, dtype)].run
    run(columns, rows, stage, out, supersample=supersample, tile=tile, dtype=dtype, after_tile=after_tile)
