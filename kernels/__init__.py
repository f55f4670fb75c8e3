"""The per-pixel stage behind one door: bi-lines in, pixels out, tile by tile. Knows nothing of the other folders.

`choose` takes a `Backend` (`backend.py`): its `prepare` packs the stage of one latent, its `reside` keeps the stage of
a generator on a device for many latents. `reference.py` is the specification. Backends are `fused.py`, the Triton
kernel for CUDA GPUs, which `trial.py` trusts only after it gave the right values in another process; `onednn.py`, for
bfloat16 on CPUs with instructions for it; and `tiled.py`, in torch, for every device. `points.py` paints scattered
points, `recompute.py` and `explicit_backward.py` serve training, `graphs.py` CUDA graphs, `workers.py` threads.

Other folders import from here, never from a module of this folder.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .backend import Backend, OverflowFlag, PreparedStage, ResidentStage
from .fused import TritonBackend, missing_triton
from .graphs import CudaGraph, Graph, may_read_values, static_shapes
from .image import Tile, axis_order, empty_like_image, mean_of_samples, split_tiles, store_image
from .onednn import OneDnnBackend, fused_bfloat16_missing, fused_linear
from .points import (
    SINGLE_THREAD_ELEMENTS,
    TablePositions,
    entangle_at,
    line_table,
    points_at_once,
    table_positions,
)
from .recompute import TILE_PIXELS, clamp, entangle_recomputed, recompute
from .reference import ACTIVATION_GAIN, CLAMP, LEAKY_SLOPE, entangle, leaky_relu
from .stage import PUBLISHED, BlockScales, Layer, PixelBlock, PixelStage, StageLatent, StageShape
from .tiled import TiledBackend, TiledWeights
from .trial import TrialCase, TrialResult, driver_version, settle_trial, trial_running
from .workers import run_parallel

__all__ = [
    "ACTIVATION_GAIN",
    "BACKENDS",
    "CLAMP",
    "LEAKY_SLOPE",
    "PRECISIONS",
    "PUBLISHED",
    "SINGLE_THREAD_ELEMENTS",
    "TILE_PIXELS",
    "Backend",
    "BlockScales",
    "CudaGraph",
    "Graph",
    "Layer",
    "OverflowFlag",
    "PixelBlock",
    "PixelStage",
    "PreparedStage",
    "ResidentStage",
    "StageLatent",
    "StageShape",
    "TablePositions",
    "Tile",
    "TiledWeights",
    "TrialCase",
    "TrialResult",
    "TritonBackend",
    "axis_order",
    "choose",
    "clamp",
    "driver_version",
    "empty_like_image",
    "entangle",
    "entangle_at",
    "entangle_recomputed",
    "explain",
    "fused_bfloat16_missing",
    "fused_linear",
    "leaky_relu",
    "line_table",
    "may_read_values",
    "mean_of_samples",
    "missing_triton",
    "points_at_once",
    "prepare",
    "recompute",
    "resolve_precision",
    "run_parallel",
    "settle_trial",
    "settle_trials",
    "split_tiles",
    "static_shapes",
    "store_image",
    "table_positions",
    "trial_running",
]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (TritonBackend(), OneDnnBackend(), TiledBackend())}
"""By name, in order of preference."""


def resolve_precision(precision: str) -> torch.dtype:
    """`auto | float32 | bfloat16 | float16` -> dtype of the matrix products; here `auto` is float32.

    Raises:
        ValueError: unknown precision.
    """
    if precision == "auto":
        return torch.float32
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {['auto', *PRECISIONS]}, not {precision!r}")
    return PRECISIONS[precision]


def explain(device: torch.device, shape: StageShape = PUBLISHED) -> dict[str, dict[str, str | None]]:
    """By precision and backend, why it cannot run on a device, or None; `auto` takes the first that can.

    Waits for trials.
    """
    return {
        precision: {name: backend.refuses(device, dtype, shape, wait=True) for name, backend in BACKENDS.items()}
        for precision, dtype in PRECISIONS.items()
    }


def settle_trials(device: torch.device, shape: StageShape = PUBLISHED) -> None:
    """Wait until it is known which backends can run on a device, for programs that end after one image."""
    for dtype in (torch.float16, torch.float32) if device.type == "cuda" else ():
        choose("auto", device, dtype, shape, wait=True)


def choose(
    name: str,
    device: torch.device,
    dtype: torch.dtype,
    shape: StageShape = PUBLISHED,
    *,
    wait: bool = False,
    backends: Mapping[str, Backend] = BACKENDS,
) -> Backend:
    """The backend that will run; `auto` takes the first that can.

    Args:
        name: `auto`, or a name in `backends`; a named backend's trial is waited for.
        device: of the lines.
        dtype: of the matrix products.
        shape: of the stage.
        wait: wait for trials with `auto` too, in place of taking another backend meanwhile.
        backends: to choose from, in order of preference.

    Raises:
        ValueError: the backend is unknown, or cannot run there; the message says why.
    """
    if name != "auto" and name not in backends:
        raise ValueError(f"backend must be one of {['auto', *backends]}, not {name!r}")
    reasons = []
    for backend in backends.values() if name == "auto" else [backends[name]]:
        reason = backend.refuses(device, dtype, shape, wait=wait or name != "auto")
        if reason is None:
            return backend
        reasons.append(f"{backend.name}: {reason}")
    raise ValueError(f"no backend can run in {dtype} on {device}: {'; '.join(reasons)}")


def prepare(
    stage: PixelStage, device: torch.device, *, dtype: torch.dtype = torch.float32, backend: str = "auto"
) -> PreparedStage:
    """Pack the stage of a latent (no batch axes) for any number of images.

    Args:
        device: of the lines.
        dtype: of the matrix products.
        backend: a name in `BACKENDS`, or `auto`.

    Raises:
        ValueError: see `choose`.
    """
    chosen = choose(backend, device, dtype, stage.shape)
    return PreparedStage(chosen, chosen.prepare(stage, dtype))
