"""The per-pixel stage behind one door: bi-lines in, pixels out, tile by tile.

`reference.py` is the specification, `fused.py` the Triton kernel for CUDA GPUs (which `trial.py` trusts only after it
was right in a process of its own), `tiled.py` the torch path for every device, `onednn.py` the one for bfloat16 on CPUs
that are made for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from . import fused, onednn, tiled, trial
from .stage import PUBLISHED, Layer, PixelBlock, PixelStage, StageShape
from .trial import cache_folder

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "Layer",
    "PixelBlock",
    "PixelStage",
    "Prepared",
    "StageShape",
    "cache_folder",
    "checking",
    "choose",
    "entangle",
    "explain",
    "prepare",
    "resolve_precision",
    "settle",
]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Backend:
    """A way to run the per-pixel stage.

    `refuses(device, dtype, shape, wait)` is the reason why it cannot run there, or None; `wait` for what takes time to
    find out. `prepare(stage, dtype)` folds and packs
    the weights of a latent, once. `run(columns, rows, prepared, out, *, supersample, tile, after_tile)` fills `out`.
    """

    refuses: Callable[..., str | None]
    prepare: Callable[[PixelStage, torch.dtype], Any]
    run: Callable[..., None]


BACKENDS = {
    "triton": Backend(fused.refuses, fused.prepare, fused.entangle),
    "onednn": Backend(onednn.refuses, onednn.Prepared, onednn.entangle),
    "tiled": Backend(tiled.refuses, tiled.Prepared, tiled.entangle),
}
"""In order of preference."""


@dataclass(frozen=True)
class Prepared:
    """The stage of a latent, packed for the backend that will run it."""

    backend: str
    weights: Any


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """`auto | float32 | bfloat16 | float16` -> dtype of the matrix products. `auto` is float32 on every device."""
    if precision == "auto":
        return torch.float32
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {['auto', *PRECISIONS]}, not {precision!r}")
    return PRECISIONS[precision]


def explain(device: torch.device, shape: StageShape = PUBLISHED) -> dict[str, dict[str, str | None]]:
    """By precision and backend, why it cannot run on a device, or None; `auto` takes the first that can. Waits for
    trials.
    """
    return {
        precision: {name: backend.refuses(device, dtype, shape, wait=True) for name, backend in BACKENDS.items()}
        for precision, dtype in PRECISIONS.items()
    }


def checking() -> bool:
    """Whether a faster backend is being tried in the background."""
    return trial.under_way()


def settle(device: torch.device, shape: StageShape = PUBLISHED) -> None:
    """Wait until it is known what can run on a device, for programs that end after one picture."""
    for dtype in (torch.float16, torch.float32) if device.type == "cuda" else ():
        choose("auto", device, dtype, shape, wait=True)


def choose(
    backend: str, device: torch.device, dtype: torch.dtype, shape: StageShape = PUBLISHED, wait: bool = False
) -> str:
    """The name of the backend that will run; `auto` takes the first that can.

    Args:
        backend: `auto`, or a name in `BACKENDS`, for which this waits if it is being tried.
        device, dtype: of the lines; of the products.
        shape: of the stage.
        wait: with `auto` too, instead of taking another one meanwhile.

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
        reason = BACKENDS[name].refuses(device, dtype, shape, wait=wait or backend != "auto")
        if reason is None:
            return name
        reasons.append(f"{name}: {reason}")
    raise ValueError(f"no backend can run in {dtype} on {device}: {'; '.join(reasons)}")


def prepare(
    stage: PixelStage, device: torch.device, *, dtype: torch.dtype = torch.float32, backend: str = "auto"
) -> Prepared:
    """Pack the stage of a latent (no batch axes) for any number of `entangle`.

    Args:
        device: where the lines will be.
        dtype: of the matrix products.
        backend: a name in `BACKENDS`, or `auto`.

    Raises:
        ValueError: see `choose`.
    """
    name = choose(backend, device, dtype, stage.shape)
    return Prepared(name, BACKENDS[name].prepare(stage, dtype))


def entangle(
    columns: Tensor,
    rows: Tensor,
    prepared: Prepared,
    out: Tensor,
    *,
    supersample: int = 1,
    tile: tuple[int, int] | None = None,
    after_tile: Callable[[int], None] = lambda pixels: None,
) -> None:
    """Fill `out` with the picture of a pair of lines.

    Args:
        columns: [L, B, height * supersample, rank], line 0, float32 or the dtype of the products.
        rows: [L, B, width * supersample, rank], line 1, likewise.
        prepared: from `prepare`.
        out: [C, height, width], any strides, on the device of the lines or on the CPU. A float dtype receives
            values of about -1..1; uint8 receives `x * 127.5 + 128`, clamped to 0..255, fraction cut off.
        supersample: samples per pixel and side; a pixel is their mean.
        tile: (height, width) of a tile in pixels; None for a size that suits the backend and flat memory.
        after_tile: called in the calling thread after every tile with its number of pixels; what it raises ends
            the work.

    Raises:
        OverflowError: the picture has values that are not finite, which half precision can cause.
    """
    run = BACKENDS[prepared.backend].run
    run(columns, rows, prepared.weights, out, supersample=supersample, tile=tile, after_tile=after_tile)
