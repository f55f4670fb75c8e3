"""Views and films: one image per view of a path, each rendered natively."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from einops import rearrange
from torch import Tensor

from ...common.progress import Progress, partial_progress
from ..network import Generator, GeneratorConfig
from .camera import View
from .device import transfer_for
from .render import RenderCache, memory_estimate, render_image
from .spec import ImageSpec, ViewOptions
from .warp import Tables, render_mapped, tables_estimate
from .window import same_area_window

if TYPE_CHECKING:
    from typing_extensions import Unpack

_MAX_CACHED_POSITIONS = 4096  # of the columns that are cached for the next frame: 29 MB for a 512 model


def render_view(
    generator: Generator,
    ws: Tensor,
    view: View,
    *,
    of: tuple[int, int] | None = None,
    progress: Progress | None = None,
    out: Tensor | None = None,
    tables: list[Tables] | None = None,
    cache: RenderCache | None = None,
    **image: Unpack[ViewOptions],
) -> Tensor:
    """Render a view.

    Args:
        generator, ws, progress, out, cache: as for `render`.
        view: an upright view is rendered as a window; for other views see `warp.render_mapped`.
        of: (height, width) of a larger image of the same view, if this image is to be scaled up and laid over it: its
            pixels then cover the same area, see `window.same_area_window`.
        tables: for views that are not upright, see `warp.render_mapped`.
        image: height, width, supersample and precision, as for `render`; fit, how the view, which has the aspect of
            the frame, is brought to the aspect of the image (default `crop`, see `window.fit_window`); quality, of
            views that are not upright, a name in `QUALITIES` (default `good`); backend and tile, of upright views.

    Returns:
        [N, C, height, width] float32, about -1..1, on the generator's device; or `out`.

    Raises:
        As `render`.
    """
    image.setdefault("fit", "crop")
    spec = ImageSpec(**image, aspect=generator.aspect)
    return _render_view(generator, ws, view, spec, of, progress=progress, out=out, tables=tables, cache=cache)


def _render_view(
    generator: Generator,
    ws: Tensor,
    view: View,
    spec: ImageSpec,
    of: tuple[int, int] | None = None,
    *,
    progress: Progress | None,
    out: Tensor | None,
    tables: list[Tables] | None,
    cache: RenderCache | None,
) -> Tensor:
    extent = view.extent(*(of or (spec.height, spec.width)), spec.fit, generator.aspect)
    if of is not None:
        extent = same_area_window(extent, *of, spec.height, spec.width)
    if not view.upright:
        spec = replace(spec, window=extent, fit="stretch")
        plane_map = view.plane_map(generator.aspect)
        return render_mapped(generator, ws, plane_map, spec, progress=progress, out=out, tables=tables)
    window, transposed = view.placement(extent, generator.aspect)
    spec = replace(spec, window=window, fit="stretch")
    if not transposed:
        return render_image(generator, ws, spec, progress=progress, out=out, cache=cache)
    spec = replace(spec, height=spec.width, width=spec.height)
    out = None if out is None else _transposed(out)
    return _transposed(render_image(generator, ws, spec, progress=progress, out=out, cache=cache))


def _transposed(image: Tensor) -> Tensor:
    """The same memory with height and width exchanged."""
    return rearrange(image, "n c h w -> n c w h")


def render_path(
    generator: Generator,
    ws: Tensor,
    views: Sequence[View],
    *,
    progress: Progress | None = None,
    out: Tensor | None = None,
    **image: Unpack[ViewOptions],
) -> Tensor:
    """Render one image per view. Beyond the images it takes no more memory than one of them.

    Args:
        generator: on any device.
        ws: [1, num_ws, w_dim], the same latent in every frame, or [len(views), num_ws, w_dim], one per frame.
        views: from `camera.camera_path`, or any others.
        progress, out: as for `render`.
        image: as for `render_view`.

    Returns:
        [len(views), C, height, width] float32, about -1..1, on the generator's device; or `out`.

    Raises:
        As `render`, and ValueError: there are no views, or neither one latent nor one per view.
    """
    views = list(views)
    if not views:
        raise ValueError("a film needs at least one view")
    if len(ws) not in (1, len(views)):
        raise ValueError(
            f"a path of {len(views)} views takes one latent, or {len(views)}, one per frame, not {len(ws)}; make the "
            "camera path and the latent path of equal length"
        )
    image.setdefault("fit", "crop")
    spec = ImageSpec(**image, aspect=generator.aspect)
    out = spec.output(generator, len(views), out)
    tables: list[Tables] | None = [] if len(ws) == 1 else None
    cache = RenderCache(_MAX_CACHED_POSITIONS, transfer_for(generator, 2))
    for i, view in enumerate(views):
        _render_view(
            generator,
            ws if len(ws) == 1 else ws[i : i + 1],
            view,
            spec,
            progress=partial_progress(progress, i, i + 1, len(views)),
            out=out[i : i + 1],
            tables=tables,
            cache=cache,
        )
    cache.finish()
    return out


def views_estimate(
    config: GeneratorConfig, views: Sequence[View], height: int, width: int, supersample: int = 1
) -> int:
    """Bytes that rendering these views takes on the generator's device in float32, beyond weights and images."""
    estimates = [memory_estimate(config, height, width, supersample)] if any(v.upright for v in views) else []
    if any(v.upright and v.rotation % 180 for v in views):
        estimates.append(memory_estimate(config, width, height, supersample))
    if not all(v.upright for v in views):
        estimates.append(tables_estimate(config))
    return max(estimates)
