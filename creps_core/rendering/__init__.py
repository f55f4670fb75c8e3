"""From latents to pictures: any size, window and camera, in memory or straight to a file.

Read `render.py` first: there a latent becomes lines, and lines become pixels through `kernels`. `window.py` says where
samples lie, `camera.py` what a view shows, `film.py` renders paths, `warp.py` what is turned or bent, `large.py` files.
"""

from .camera import EASINGS, TIMINGS, WARPS, View, add_warp, between, camera_path
from .device import probe_precision, release_renderers, shape_of
from .film import render_path, render_view, share, views_estimate
from .large import BITS, Preview, render_to_file
from .picture_graphs import allow_graphs
from .render import Progress, RenderCache, memory_estimate, render, render_bands
from .spec import MAX_SIDE, MAX_SUPERSAMPLE, ImageSpec
from .unfinished import Leftover, clear_unfinished, unfinished_in
from .warp import QUALITIES
from .window import FITS, WHOLE_FRAME, Window, fit_window, frame_size, full_size, sample_positions

__all__ = [
    "BITS",
    "EASINGS",
    "FITS",
    "MAX_SIDE",
    "MAX_SUPERSAMPLE",
    "QUALITIES",
    "TIMINGS",
    "WARPS",
    "WHOLE_FRAME",
    "ImageSpec",
    "Leftover",
    "Preview",
    "Progress",
    "RenderCache",
    "View",
    "Window",
    "add_warp",
    "allow_graphs",
    "between",
    "camera_path",
    "clear_unfinished",
    "fit_window",
    "frame_size",
    "full_size",
    "memory_estimate",
    "probe_precision",
    "release_renderers",
    "render",
    "render_bands",
    "render_path",
    "render_to_file",
    "render_view",
    "sample_positions",
    "shape_of",
    "share",
    "unfinished_in",
    "views_estimate",
]
