"""The per-pixel stage by the Triton kernel in `fused_kernel.py`, on CUDA GPUs: launch and door.

`reference.py` is the specification, `packing.py` lays out the operands, `trial.py` finds out in another process what is
safe to launch. Products take float16 or bfloat16 operands and sum in float32. For float32 every operand is split into
an upper and a lower float16, three products for one, which keeps 22 bits. Triton is optional: it is imported when it is
first needed.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from . import trial
from .packing import Config, Packed, pack, pack_line
from .stage import PUBLISHED, PixelStage, StageShape
from .tiled import average

log = logging.getLogger("CREPS")

SCRATCH_BYTES = 48 << 20
"""What a picture on its way to another device or dtype, or to fewer samples, may take."""
LAUNCH_PIXELS = 4 << 20
"""Samples per launch, at most: slow GPUs that drive a screen must not be busy for long."""
STORED = (torch.uint8, torch.float32)
"""What the kernel writes; other dtypes are made of float32."""


# Launch


def launch(columns: Tensor, rows: Tensor, stage: Packed, out: Tensor, overflow: Tensor) -> None:
    """Paint `out` [channels, height, width] from packed lines, without waiting; `overflow` [1] is set if it does.

    Args:
        columns: [L, height, rank, B], halved, possibly a part of longer lines.
        rows: [L, width, rank, B], likewise.
    """
    from .fused_kernel import entangle_kernel

    kernel: Any = entangle_kernel  # type checkers do not know what @triton.jit makes of a function

    (channels, height, width), (levels, _, rank, b) = out.shape, columns.shape
    config = stage.config
    tile_h, tile_w = config.tile
    constants = {
        "CHANNELS": channels,
        "C": stage.image_channels,
        "B": b,
        "RANK": rank,
        "TILE_H": tile_h,
        "TILE_W": tile_w,
        "PARTS": config.parts,
        "EXACT": stage.dtype == torch.float32,
    }
    _announce(out.device, out.dtype, stage.dtype, *constants.values())
    with torch.cuda.device(out.device) if out.is_cuda else nullcontext():
        grid = (-(-width // tile_w), -(-height // tile_h))
        kernel[grid](
            columns,
            rows,
            stage.weights,
            stage.biases,
            stage.scale,
            out,
            overflow,
            height,
            width,
            levels,
            stage.lower,
            columns.stride(0) // (rank * b),
            rows.stride(0) // (rank * b),
            *out.stride(),
            **constants,
            num_warps=config.warps,
            num_stages=config.stages,
            enable_fp_fusion=True,  # said aloud: the default depends on the version
        )


@functools.cache
def _announce(device: torch.device, *key: object) -> None:
    """Before the first launch of a configuration, which takes a while; Triton keeps the result on disk."""
    log.debug("loading the pixel kernel for %s", device)


def paint(
    columns: Tensor,
    rows: Tensor,
    stage: Packed,
    out: Tensor,
    overflow: Tensor,
    *,
    supersample: int = 1,
    tile: tuple[int, int] | None = None,
    after_tile: Callable[[int], None] = lambda pixels: None,
) -> None:
    """Queue the launches that fill `out`; see `launch`, and `kernels.entangle` for `out`.

    A launch paints what `LAUNCH_PIXELS` and `SCRATCH_BYTES` allow, or a `tile` if that is smaller. With k samples per
    pixel and side a piece is painted k times finer and averaged.
    """
    k, (channels, height, width) = supersample, out.shape
    device = columns.device
    direct = k == 1 and out.device == device and out.dtype in STORED
    step_h, step_w = pieces(height, width, channels, k, direct)
    if tile is not None:
        step_h, step_w = min(step_h, tile[0]), min(step_w, tile[1])
    stored = out.dtype if out.dtype in STORED and k == 1 else torch.float32
    for top in range(0, height, step_h):
        for left in range(0, width, step_w):
            box = out[:, top : top + step_h, left : left + step_w]
            h, w = box.shape[1:]
            target = box if direct else like(box, stored, device, k)
            launch(columns[:, top * k : (top + h) * k], rows[:, left * k : (left + w) * k], stage, target, overflow)
            if not direct:
                target = average(target, k)
                if out.dtype == torch.uint8 and k > 1:
                    target = target.mul_(127.5).add_(128).clamp_(0, 255).to(torch.uint8)
                box.copy_(target)
            after_tile(h * w)


def order(out: Tensor) -> tuple[int, ...]:
    """The axes of a picture, the one with the largest stride first."""
    return tuple(sorted(range(out.ndim), key=lambda axis: -out.stride(axis)))


def like(out: Tensor, dtype: torch.dtype, device: torch.device, times: int = 1) -> Tensor:
    """Memory for a picture [C, height * times, width * times] in the order of `out`, so that a copy is one piece."""
    axes, (channels, height, width) = order(out), out.shape
    shape = (channels, height * times, width * times)
    memory = torch.empty([shape[axis] for axis in axes], dtype=dtype, device=device)
    return memory.permute([axes.index(axis) for axis in range(3)])


def pieces(height: int, width: int, channels: int, supersample: int, direct: bool) -> tuple[int, int]:
    """Height and width in pixels of what a launch paints."""
    samples = LAUNCH_PIXELS if direct else min(LAUNCH_PIXELS, SCRATCH_BYTES // (4 * channels))
    pixels = max(1, samples // supersample**2)
    step_w = min(width, pixels)
    return min(height, max(1, pixels // step_w)), step_w


# Door


def prepare(stage: PixelStage, dtype: torch.dtype) -> Packed:
    """Pack the stage of a latent, for the configuration that passed the trial.

    Raises:
        ValueError: more bi-line channels than `packing.WIDEST`.
    """
    return pack(stage, dtype, configuration(stage.image.weight.device, dtype, stage.shape))


def entangle(
    columns: Tensor,
    rows: Tensor,
    prepared: Packed,
    out: Tensor,
    *,
    supersample: int,
    tile: tuple[int, int] | None,
    after_tile: Callable[[int], None],
) -> None:
    """See `kernels.entangle`. `after_tile` is called when a launch is queued; the GPU has finished when this returns.

    Raises:
        OverflowError: the picture is not finite.
    """
    channels, dtype = prepared.channels, prepared.dtype
    packed_columns = pack_line(columns, channels, dtype).mul_(0.5)
    packed_rows = pack_line(rows, channels, dtype)
    overflow = torch.zeros(1, dtype=torch.int32, device=columns.device)
    options: dict[str, Any] = {"supersample": supersample, "tile": tile, "after_tile": after_tile}
    paint(packed_columns, packed_rows, prepared, out, overflow, **options)
    check(overflow, dtype)


def check(overflow: Tensor, dtype: torch.dtype) -> None:
    """Wait for the GPU, and raise OverflowError if a picture was not finite."""
    if overflow.item():
        advice = "" if dtype == torch.float32 else "; render with precision float32"
        raise OverflowError(f"the picture has values that are not finite{advice}")


def configuration(device: torch.device, dtype: torch.dtype, shape: StageShape) -> Config:
    """What to launch; only where `refuses` has nothing to say."""
    if device.type != "cuda":
        return trial.candidates(9, shape.channels, dtype == torch.float32)[0]
    verdict = trial.settle(trial.Case(_index(device), str(dtype), *shape))
    if verdict.config is None:
        raise RuntimeError(f"the pixel kernel cannot run here: {verdict.reason}")
    return verdict.config


def refuses(device: torch.device, dtype: torch.dtype, shape: StageShape = PUBLISHED, wait: bool = False) -> str | None:
    """Why the kernel cannot run there. The first question about a case begins its trial, which takes some seconds.

    Args:
        wait: for the end of the trial; else the answer is meanwhile that it is being checked.
    """
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":  # for tests: slow
        return "the Triton interpreter has no bfloat16" if dtype == torch.bfloat16 else missing()
    if device.type != "cuda":
        return f"it needs a CUDA GPU, not {device.type}"
    if torch.version.hip:
        return "it is not tested on ROCm"
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        return f"it needs compute capability 8.0 (Ampere) or later, not {capability[0]}.{capability[1]}"
    if reason := missing():
        return reason
    case = trial.Case(_index(device), str(dtype), *shape)
    verdict = trial.settle(case) if wait else trial.verdict(case)
    return "it is being checked for this GPU, once" if verdict is None else verdict.reason


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


@functools.cache
def missing() -> str | None:
    """Why there is no Triton, or None."""
    try:
        import triton.language  # noqa: F401  # pyright: ignore[reportMissingImports]
    except Exception as error:  # a broken installation raises all sorts
        package = "triton-windows" if sys.platform == "win32" else "triton"
        return f"{package} is not installed or broken ({error})"
    return None
