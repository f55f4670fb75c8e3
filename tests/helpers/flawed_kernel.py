"""Painters for `trial_child.find_fault`: the specification, with a fault."""

from __future__ import annotations

import torch
from comfyui_creps.kernels import reference


def flawed(fault: str):
    """A painter that gives the values of the specification, except for `fault`."""
    painted = 0

    def paint(columns, rows, stage, out) -> bool:
        nonlocal painted
        painted += 1
        if fault == "raises":
            raise RuntimeError("an illegal memory access was encountered")
        if fault == "out of memory":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        if fault == "busy":
            raise RuntimeError("all CUDA-capable devices are busy or unavailable")
        image = reference.entangle(columns, rows, stage)
        overflowed = not torch.isfinite(image).all()
        if fault == "wrong" or (fault == "wrong at 64 rows" and image.shape[1] > 64):
            image = image * 1.5
        if fault == "wrong now and then" and painted % 5 == 4:
            image = image + 0.5
        if fault == "wrong in 8 bits" and out.dtype == torch.uint8:
            image = image + 0.2
        if fault == "writes nothing":
            return False
        image = (image * 127.5 + 128).clamp(0, 255) if out.dtype == torch.uint8 else image
        rows_written = slice(0, -1) if fault == "misses the last row" else slice(None)
        out[:, rows_written].copy_(image[:, rows_written])
        return fault == "cries wolf" or (overflowed and fault != "blind to NaN")

    return paint
