"""The child process of a trial: paints images with one configuration of the kernel and checks them.

It reads a job from its standard input and prints its answer as the last line. It may crash or hang: `trial.py` expects
that.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from . import reference
from .fused import TritonBackend
from .packing import KernelConfig, example, pack, pack_line
from .stage import PixelStage

Painter = Callable[[Tensor, Tensor, PixelStage, Tensor], bool]
"""(columns, rows, stage, out) -> whether the image overflowed; the lines are float32 [L, B, n, rank]."""

TRIAL_IMAGES = ((1, 1, 1), (3, 11, 21), (2, 8, 16), (7, 67, 131), (7, 200, 333))
"""Levels, height and width of the images; most are no whole number of tiles."""
LAUNCHES = 20
"""Of each image: some faults are intermittent."""
TOLERANCES = {"torch.float32": 2e-5, "torch.float16": 1e-2, "torch.bfloat16": 8e-2}
"""Largest error, relative to the largest value of the image. On an H200 correct configurations give 5.5e-6 (float32)
and 5.9e-3 (float16), faulty ones 0.5 and 17."""

_TEMPORARY = ("out of memory", "busy or unavailable")  # the GPU is in use


def find_fault(paint: Painter, dtype: str, channels: int, image_channels: int, device: torch.device) -> str | None:
    """Check a painter against the specification in float64.

    Every image is painted `LAUNCHES` times into memory filled with NaN, and once as uint8; a line that is not finite
    must be noticed.

    Returns:
        What is wrong with it, or None.
    """
    for number, (levels, height, width) in enumerate(TRIAL_IMAGES):
        shape = {"levels": levels, "channels": channels, "image_channels": image_channels}
        columns, rows, stage = example(height, width, **shape, seed=number)
        columns, rows, stage = columns.to(device), rows.to(device), stage.to(device)
        expected = reference.entangle(columns.double(), rows.double(), stage.to(torch.float64))
        size = expected.abs().max().item()
        tolerance = TOLERANCES[dtype] * size
        for _ in range(LAUNCHES):
            out = torch.full(expected.shape, torch.nan, device=device)
            if paint(columns, rows, stage, out):
                return f"it finds an overflow in a picture of {width} x {height} where there is none"
            error = (out.double() - expected).abs().max().item()
            if not error <= tolerance:
                return f"it is wrong by {error / size:.1e} of a picture of {width} x {height}"
        out = torch.full(expected.shape, 99, dtype=torch.uint8, device=device)
        paint(columns, rows, stage, out)
        error = (out.double() + 0.5 - (expected * 127.5 + 128).clamp(0, 255)).abs().max().item()
        if not error <= 0.5 + 127.5 * tolerance:
            return f"it is wrong by {error:.1f} levels of 8 bits in a picture of {width} x {height}"
    columns, rows, stage = example(9, 17, channels=channels, image_channels=image_channels)
    rows[-1, 0, 0, 0] = torch.nan
    out = torch.empty((image_channels, 9, 17), device=device)
    if not paint(columns.to(device), rows.to(device), stage.to(device), out):
        return "it does not notice values that are not finite"
    return None


def kernel_painter(config: KernelConfig, dtype: torch.dtype) -> Painter:
    """The kernel in one configuration, as a painter."""

    def paint(columns: Tensor, rows: Tensor, stage: PixelStage, out: Tensor) -> bool:
        packed = pack(stage, dtype, config)
        overflow = torch.zeros(1, dtype=torch.int32, device=columns.device)
        lines = pack_line(columns, packed.channels, dtype).mul_(0.5), pack_line(rows, packed.channels, dtype)
        TritonBackend().launch(*lines, packed, out, overflow)
        return bool(overflow.item())

    return paint


def run_child() -> None:
    """Read one job from the standard input, answer it, and end the process."""
    job = json.loads(sys.stdin.read())
    answer(job, lambda: run(job))


def run(job: dict) -> str | None:
    """Try the configuration of a job; returns what is wrong with it, or None."""
    if not torch.cuda.is_available():
        return "this process sees no CUDA GPU"
    device = torch.device("cuda", job["device"])
    torch.cuda.set_device(device)
    config = KernelConfig(tuple(job["config"][0]), *job["config"][1:])
    dtype = {str(d): d for d in (torch.float32, torch.float16, torch.bfloat16)}[job["dtype"]]
    shape = job["channels"], job["image_channels"]
    return find_fault(kernel_painter(config, dtype), job["dtype"], *shape, device)


def examine(work: Callable[[], str | None]) -> tuple[str | None, bool]:
    """What `work` finds wrong, exceptions included, or None; and whether another trial would give the same answer."""
    try:
        return work(), True
    except torch.cuda.OutOfMemoryError:
        return "the GPU had no memory left for its check", False
    except Exception as error:  # no C compiler, a driver that is too old, a configuration that does not compile, ...
        text = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {text[0][:200]}", not any(sign in str(error) for sign in _TEMPORARY)


def answer(job: dict, work: Callable[[], str | None]) -> None:
    """Print what `work` finds, and end the process. A child whose parent is gone ends itself after the time limit."""
    timer = threading.Timer(job["seconds"] + 10, os._exit, (3,))
    timer.daemon = True
    timer.start()
    reason, lasting = examine(work)
    sys.stdout.write("\n" + json.dumps({"checked": True, "reason": reason, "lasting": lasting}) + "\n")
    sys.stdout.flush()
    os._exit(0)  # skips the clean-up of a CUDA context that may be broken
