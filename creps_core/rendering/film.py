"""Pictures of views, and films: one picture per view of a path, each rendered natively."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from ..network import Generator, GeneratorConfig
from .camera import View
from .device import transfer_for
from .render import Progress, RenderCache, memory_estimate, render
from .spec import check_out
from .warp import Tables, render_mapped, tables_estimate
from .window import same_area_window

_STEPS = 1 << 16  # of progress per unit of shared work
_LONGEST_KEPT = 4096  # positions of a line that is kept for the next frame: 29 MB for a 512 model


def render_view(
    generator: Generator,
    ws: Tensor,
    view: View,
    *,
    height: int,
    width: int,
    fit: str = "crop",
    of: tuple[int, int] | None = None,
    supersample: int = 1,
    quality: str = "good",
    precision: str = "auto",
    backend: str = "auto",
    tile: int | tuple[int, int] | None = None,
    progress: Progress | None = None,
    out: Tensor | None = None,
    tables: list[Tables] | None = None,
    cache: RenderCache | None = None,
) -> Tensor:
    """Render what a camera sees.

    Args:
        generator, ws, height, width, supersample, precision, progress, out: as for `render`.
        view: an upright view is a window, rendered as any other; for others see `warp.render_mapped`.
        fit: how the view, which has the aspect of the frame, is brought to the shape of the picture; see
            `window.fit_window`.
        of: (height, width) of a larger picture of this view, when this one is to be scaled up and laid over it: its
            pixels then cover the same area, see `window.same_area_window`.
        quality: of views that are not upright, a name in `warp.QUALITIES`.
        backend, tile: of upright views, as for `render`.
        tables: see `warp.render_mapped`.
        cache: see `render`.

    Returns:
        [N, C, height, width] float32, about -1..1, on the generator's device; or `out`.

    Raises:
        As `render`.
    """
    extent = view.extent(*(of or (height, width)), fit, generator.aspect)
    if of is not None:
        extent = same_area_window(extent, *of, height, width)
    if not view.upright:
        return render_mapped(
            generator,
            ws,
            view.mapping(generator.aspect),
            height=height,
            width=width,
            window=extent,
            supersample=supersample,
            quality=quality,
            precision=precision,
            progress=progress,
            out=out,
            tables=tables,
        )
    window, transposed = view.placement(extent, generator.aspect)
    if transposed:
        height, width = width, height
    picture = render(
        generator,
        ws,
        height=height,
        width=width,
        window=window,
        supersample=supersample,
        precision=precision,
        backend=backend,
        tile=tile,
        progress=progress,
        out=_turned(out) if transposed and out is not None else out,
        cache=cache,
    )
    return _turned(picture) if transposed else picture


def _turned(picture: Tensor) -> Tensor:
    """The same memory, read with height and width exchanged."""
    return rearrange(picture, "n c h w -> n c w h")


def render_path(
    generator: Generator,
    ws: Tensor,
    views: Sequence[View],
    *,
    height: int,
    width: int,
    fit: str = "crop",
    supersample: int = 1,
    quality: str = "good",
    precision: str = "auto",
    backend: str = "auto",
    tile: int | tuple[int, int] | None = None,
    progress: Progress | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Render one picture per view. Beyond the pictures it takes no more memory than one of them.

    Args:
        generator: on any device.
        ws: [1, num_ws, w_dim], the same latent in every frame, or [len(views), ...], one per frame.
        views: from `camera.camera_path`, or any others.
        others: as for `render_view`.

    Returns:
        [len(views), C, height, width] float32, about -1..1, on the generator's device; or `out`.

    Raises:
        As `render`, and ValueError: there are no views, or latents for some of them only.
    """
    views = list(views)
    if not views:
        raise ValueError("a film needs at least one view")
    if len(ws) not in (1, len(views)):
        raise ValueError(
            f"a path of {len(views)} views takes one latent, or {len(views)}, one per frame, not {len(ws)}; make the "
            "camera path and the latent path of equal length"
        )
    shape = (len(views), generator.config.img_channels, height, width)
    if out is None:
        out = torch.empty(shape, device=generator.mapping.w_avg.device)
    check_out(out, shape)
    same: list[Tables] | None = [] if len(ws) == 1 else None
    cache = RenderCache(_LONGEST_KEPT, transfer_for(generator, 2))
    for i, view in enumerate(views):
        render_view(
            generator,
            ws if len(ws) == 1 else ws[i : i + 1],
            view,
            height=height,
            width=width,
            fit=fit,
            supersample=supersample,
            quality=quality,
            precision=precision,
            backend=backend,
            tile=tile,
            progress=share(progress, i, i + 1, len(views)),
            out=out[i : i + 1],
            tables=same,
            cache=cache,
        )
    cache.finish()
    return out


def views_estimate(
    config: GeneratorConfig, views: Sequence[View], height: int, width: int, supersample: int = 1
) -> int:
    """Bytes that these views take on the generator's device, beyond weights and pictures, in float32."""
    estimates = [memory_estimate(config, height, width, supersample)] if any(v.upright for v in views) else []
    if any(v.upright and v.rotation % 180 for v in views):
        estimates.append(memory_estimate(config, width, height, supersample))
    if not all(v.upright for v in views):
        estimates.append(tables_estimate(config))
    return max(estimates)


def share(progress: Progress | None, begin: int, end: int, total: int) -> Progress | None:
    """The callback for a part of a larger work: what it is told to be 0..1 is `begin`..`end` of `total`."""
    if progress is None:
        return None

    def part(done: int, of: int) -> None:
        progress(begin * _STEPS + done * (end - begin) * _STEPS // max(of, 1), total * _STEPS)

    return part
