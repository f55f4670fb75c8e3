"""From latents to images: any size, window and view, in memory or straight to a file.

Read `render.py` first: there a latent becomes lines, and lines become pixels through `kernels`. `spec.py` is the image
to render as one value, `window.py` says where its samples lie, `camera.py` what a view shows. `film.py` renders views
and paths, `warp.py` views that are rotated or warped, `large.py` files.
"""

from .camera import TIMINGS, WARPS, View, add_warp, between, camera_path
from .device import probe_precision, release_renderers, shape_of
from .easing import EASINGS
from .film import render_path, render_view, views_estimate
from .large import AreaPreview, RenderedFile, render_to_file
from .partial_render import (
    PartialRender,
    find_lone_journals,
    find_partial_renders,
    remove_lone_journals,
    remove_partial_renders,
)
from .picture_graphs import allow_graphs
from .render import RenderCache, memory_estimate, render, render_bands
from .spec import MAX_SIDE, MAX_SUPERSAMPLE, QUALITIES, RENDER_PRECISIONS, ImageOptions, ImageSpec, ViewOptions
from .window import FITS, WHOLE_FRAME, Window, fit_window, frame_size, full_size, sample_positions
from .writers import BITS, FILE_FORMATS

__all__ = [
    "BITS",
    "EASINGS",
    "FILE_FORMATS",
    "FITS",
    "MAX_SIDE",
    "MAX_SUPERSAMPLE",
    "QUALITIES",
    "RENDER_PRECISIONS",
    "TIMINGS",
    "WARPS",
    "WHOLE_FRAME",
    "AreaPreview",
    "ImageOptions",
    "ImageSpec",
    "PartialRender",
    "RenderCache",
    "RenderedFile",
    "View",
    "ViewOptions",
    "Window",
    "add_warp",
    "allow_graphs",
    "between",
    "camera_path",
    "find_lone_journals",
    "find_partial_renders",
    "fit_window",
    "frame_size",
    "full_size",
    "memory_estimate",
    "probe_precision",
    "release_renderers",
    "remove_lone_journals",
    "remove_partial_renders",
    "render",
    "render_bands",
    "render_path",
    "render_to_file",
    "render_view",
    "sample_positions",
    "shape_of",
    "views_estimate",
]
