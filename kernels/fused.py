"""The per-pixel stage by the Triton kernel in `fused_kernel.py`, on CUDA GPUs: launches and backend.

`reference.py` is the specification, `packing.py` lays out the operands, `trial.py` finds out in another process which
configuration is safe to launch. Products take float16 or bfloat16 operands and accumulate in float32. For float32 every
operand is split into an upper and a lower float16, three products in place of one, which keeps 22 bits. Triton is
optional: it is imported at the first use.
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
from .backend import Backend, OverflowFlag, ResidentStage
from .image import empty_like_image, mean_of_samples
from .packing import KernelConfig, PackedStage, PackedWeights, pack, pack_line, padded
from .stage import PUBLISHED, PixelStage, StageLatent, StageShape

log = logging.getLogger("CREPS")

SCRATCH_BYTES = 48 << 20
"""Most that an image takes on its way to another device or dtype, or to fewer samples."""
LAUNCH_PIXELS = 4 << 20
"""Most samples per launch: slow GPUs that drive a screen must not be busy for long."""
STORED = (torch.uint8, torch.float32)
"""Dtypes that the kernel writes; others are converted from float32."""


class TritonBackend(Backend):
    """See the module."""

    name = "triton"

    def refuses(
        self, device: torch.device, dtype: torch.dtype, shape: StageShape = PUBLISHED, wait: bool = False
    ) -> str | None:
        """See `Backend.refuses`. The first question about a case starts its trial, which takes some seconds; until it
        ends the answer is that the kernel is being checked, unless `wait`.
        """
        if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":  # for tests: slow
            return "the Triton interpreter has no bfloat16" if dtype == torch.bfloat16 else missing_triton()
        if device.type != "cuda":
            return f"it needs a CUDA GPU, not {device.type}"
        if torch.version.hip:
            return "it is not tested on ROCm"
        capability = torch.cuda.get_device_capability(device)
        if capability < (8, 0):
            return f"it needs compute capability 8.0 (Ampere) or later, not {capability[0]}.{capability[1]}"
        if reason := missing_triton():
            return reason
        case = trial.TrialCase(_index(device), str(dtype), *shape)
        result = trial.settle_trial(case) if wait else trial.trial_result(case)
        return "it is being checked for this GPU, once" if result is None else result.reason

    def configuration(self, device: torch.device, dtype: torch.dtype, shape: StageShape) -> KernelConfig:
        """The configuration to launch; only where `refuses` returns None."""
        if device.type != "cuda":
            return trial.candidate_configs(9, shape.channels, dtype == torch.float32)[0]
        result = trial.settle_trial(trial.TrialCase(_index(device), str(dtype), *shape))
        if result.config is None:
            raise RuntimeError(f"the pixel kernel cannot run here: {result.reason}")
        return result.config

    def prepare(self, stage: PixelStage, dtype: torch.dtype) -> PackedWeights:
        """Pack the stage of a latent for the configuration that passed the trial.

        Raises:
            ValueError: more bi-line channels than `packing.MAX_CHANNELS`.
        """
        return pack(stage, dtype, self.configuration(stage.image.weight.device, dtype, stage.shape))

    def paint(
        self,
        columns: Tensor,
        rows: Tensor,
        weights: PackedWeights,
        out: Tensor,
        *,
        supersample: int,
        tile: tuple[int, int] | None,
        after_tile: Callable[[int], None],
    ) -> None:
        """See `PreparedStage.paint`. `after_tile` is called when a launch is queued; the GPU has finished on return."""
        channels, dtype = weights.channels, weights.dtype
        packed_columns = pack_line(columns, channels, dtype).mul_(0.5)
        packed_rows = pack_line(rows, channels, dtype)
        overflow = OverflowFlag(columns.device)
        overflow.dtype = dtype
        options: dict[str, Any] = {"supersample": supersample, "tile": tile, "after_tile": after_tile}
        self.queue(packed_columns, packed_rows, weights, out, overflow.flag, **options)
        overflow.check()

    def reside(self, stage: PixelStage, dtype: torch.dtype) -> ResidentStage:
        return _TritonStage(self, stage, dtype)

    def queue(
        self,
        columns: Tensor,
        rows: Tensor,
        weights: PackedWeights,
        out: Tensor,
        overflow: Tensor,
        *,
        supersample: int,
        tile: tuple[int, int] | None,
        after_tile: Callable[[int], None],
    ) -> None:
        """Queue the launches that fill `out`; see `launch`, and `PreparedStage.paint` for `out`.

        A launch paints what `LAUNCH_PIXELS` and `SCRATCH_BYTES` allow, or a `tile` if that is smaller. With k samples
        per pixel and side a block is painted k times finer and averaged.
        """
        k, (channels, height, width) = supersample, out.shape
        device = columns.device
        direct = k == 1 and out.device == device and out.dtype in STORED
        step_h, step_w = launch_size(height, width, channels, k, direct)
        if tile is not None:
            step_h, step_w = min(step_h, tile[0]), min(step_w, tile[1])
        stored = out.dtype if out.dtype in STORED and k == 1 else torch.float32
        for top in range(0, height, step_h):
            for left in range(0, width, step_w):
                block = out[:, top : top + step_h, left : left + step_w]
                h, w = block.shape[1:]
                target = block if direct else empty_like_image(block, stored, device, k)
                part = columns[:, top * k : (top + h) * k], rows[:, left * k : (left + w) * k]
                self.launch(*part, weights, target, overflow)
                if not direct:
                    target = mean_of_samples(target, k)
                    if out.dtype == torch.uint8 and k > 1:
                        target = target.mul_(127.5).add_(128).clamp_(0, 255).to(torch.uint8)
                    block.copy_(target)
                after_tile(h * w)

    def launch(self, columns: Tensor, rows: Tensor, weights: PackedWeights, out: Tensor, overflow: Tensor) -> None:
        """Paint `out` [channels, height, width] from packed lines, without waiting; `overflow` [1] is set on overflow.

        Args:
            columns: [L, height, rank, B], halved; may be a slice of longer lines.
            rows: [L, width, rank, B], likewise, not halved.
        """
        from .fused_kernel import entangle_kernel

        kernel: Any = entangle_kernel  # type checkers do not know what @triton.jit makes of a function

        (channels, height, width), (levels, _, rank, b) = out.shape, columns.shape
        config = weights.config
        tile_h, tile_w = config.tile
        constants = {
            "CHANNELS": channels,
            "C": weights.image_channels,
            "B": b,
            "RANK": rank,
            "TILE_H": tile_h,
            "TILE_W": tile_w,
            "PARTS": config.parts,
            "EXACT": weights.dtype == torch.float32,
        }
        _announce(out.device, out.dtype, weights.dtype, *constants.values())
        with torch.cuda.device(out.device) if out.is_cuda else nullcontext():
            grid = (-(-width // tile_w), -(-height // tile_h))
            kernel[grid](
                columns,
                rows,
                weights.blocks,
                weights.biases,
                weights.scale,
                out,
                overflow,
                height,
                width,
                levels,
                weights.lower,
                columns.stride(0) // (rank * b),
                rows.stride(0) // (rank * b),
                *out.stride(),
                **constants,
                num_warps=config.warps,
                num_stages=config.stages,
                enable_fp_fusion=True,  # explicit: the default depends on the version of Triton
            )


class _TritonStage(ResidentStage):
    """Packed weights whose blocks are scaled by each latent; everything is queued."""

    replayable = True

    def __init__(self, backend: TritonBackend, stage: PixelStage, dtype: torch.dtype):
        super().__init__(stage, dtype, padded(stage.channels))
        self._backend = backend
        config = backend.configuration(stage.image.weight.device, dtype, stage.shape)
        self._packed = PackedStage(stage, dtype, config)

    def fill(self, latent: StageLatent) -> None:
        self._packed.apply(latent.block_scales)

    def paint(
        self,
        columns: Tensor,
        rows: Tensor,
        out: Tensor,
        overflow: OverflowFlag,
        *,
        supersample: int = 1,
        tile: tuple[int, int] | None = None,
        after_tile: Callable[[int], None] = lambda pixels: None,
    ) -> None:
        self._backend.queue(
            columns, rows, self._packed.weights, out, overflow.flag, supersample=supersample, tile=tile,
            after_tile=after_tile,
        )  # fmt: skip


def launch_size(height: int, width: int, channels: int, supersample: int, direct: bool) -> tuple[int, int]:
    """Height and width in pixels of the block that a launch paints."""
    samples = LAUNCH_PIXELS if direct else min(LAUNCH_PIXELS, SCRATCH_BYTES // (4 * channels))
    pixels = max(1, samples // supersample**2)
    step_w = min(width, pixels)
    return min(height, max(1, pixels // step_w)), step_w


@functools.cache
def _announce(device: torch.device, *key: object) -> None:
    """Log the first launch of a configuration, which takes a while; Triton caches the result on disk."""
    log.debug("loading the pixel kernel for %s", device)


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


@functools.cache
def missing_triton() -> str | None:
    """Why Triton cannot be used, or None."""
    try:
        import triton.language  # noqa: F401  # pyright: ignore[reportMissingImports]
    except Exception as error:  # a broken installation raises all sorts
        package = "triton-windows" if sys.platform == "win32" else "triton"
        return f"{package} is not installed or broken ({error})"
    return None
