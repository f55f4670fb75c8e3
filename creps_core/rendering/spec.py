"""The image to render, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from ...common.errors import quoted
from ...kernels import PRECISIONS
from ..network import Generator, GeneratorConfig
from .window import SQUARE, WHOLE_FRAME, Aspect, Window, fit_window, sample_positions

MAX_SUPERSAMPLE = 16
MAX_SIDE = 131072
"""Largest height or width of an image in pixels, in memory or in a file."""
RENDER_PRECISIONS = ("auto", *PRECISIONS)
"""Precisions of the matrix products."""
QUALITIES = {"draft": 2.0, "good": 0.25, "best": 0.06, "exact": 0.0}
"""Largest error of a pixel that interpolation may cause where a view is not upright, in levels of an 8-bit image;
`exact` interpolates nothing. See `warp.py`."""


class ImageSize(TypedDict):
    """Height and width of an image in pixels."""

    height: int
    width: int


class ImageOptions(ImageSize, total=False):
    """The keywords by which `render_bands` and `render_to_file` take an image. Meaning and defaults as for `render`."""

    window: Window
    fit: str
    supersample: int
    precision: str
    backend: str
    tile: int | tuple[int, int] | None


class ViewOptions(ImageSize, total=False):
    """The keywords by which `render_view` and `render_path` take an image: the view takes the place of the window."""

    fit: str
    supersample: int
    quality: str
    precision: str
    backend: str
    tile: int | tuple[int, int] | None


@dataclass(frozen=True)
class ImageSpec:
    """An image of a latent: its size, what it shows, and how it is computed. Validated once; see `render`.

    Raises:
        ValueError: an argument is out of range; names it.
    """

    height: int  # in pixels
    width: int
    window: Window = WHOLE_FRAME
    fit: str = "stretch"
    supersample: int = 1  # samples per pixel and side
    precision: str = "auto"
    backend: str = "auto"
    tile: int | tuple[int, int] | None = None
    aspect: Aspect = SQUARE  # of the generator's frame, for `fit`
    quality: str = "good"  # of views that are not upright

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MAX_SIDE:
                raise ValueError(f"{name} must be a whole number of pixels from 1 to {MAX_SIDE}, not {quoted(value)}")
        k = self.supersample
        if type(k) is not int or not 1 <= k <= MAX_SUPERSAMPLE:
            raise ValueError(f"supersample must be a whole number from 1 to {MAX_SUPERSAMPLE}, not {k!r}")
        if self.tile is not None and min(self.tile_size) < 1:
            raise ValueError(f"tile must be at least 1 pixel on both sides, not {self.tile!r}")
        if self.quality not in QUALITIES:
            raise ValueError(f"quality must be one of {list(QUALITIES)}, not {self.quality!r}")
        fit_window(self.window, self.height, self.width, self.fit, self.aspect)  # raises if the window is not valid

    @property
    def tile_size(self) -> tuple[int, int]:
        """(height, width) of a tile in pixels; the whole image if no tile size was given."""
        if self.tile is None:
            return self.height, self.width
        return (self.tile, self.tile) if isinstance(self.tile, int) else self.tile

    @property
    def fitted_window(self) -> Window:
        """The window after `fit`."""
        return fit_window(self.window, self.height, self.width, self.fit, self.aspect)

    def positions(self) -> tuple[Tensor, Tensor]:
        """Positions of the samples, float64 on the CPU: [height * supersample] along the height, and
        [width * supersample]."""
        top, left, bottom, right = self.fitted_window
        k = self.supersample
        return sample_positions(top, bottom, self.height, k), sample_positions(left, right, self.width, k)

    def output(self, generator: Generator, count: int, out: Tensor | None = None) -> Tensor:
        """`out`, or a new float32 tensor on the generator's device, for `count` images: [count, C, height, width].

        Raises:
            ValueError: `out` has another shape.
        """
        shape = (count, generator.config.img_channels, self.height, self.width)
        if out is None:
            return torch.empty(shape, device=generator.mapping.w_avg.device)
        if out.shape != shape:
            raise ValueError(f"out must have the shape {list(shape)}, not {list(out.shape)}")
        return out


def check_ws(config: GeneratorConfig, ws: Tensor) -> None:
    """Raise ValueError unless ws have the shape of the generator's latents, [N, num_ws, w_dim]."""
    wanted = (config.num_ws, config.w_dim)
    if ws.ndim != 3 or tuple(ws.shape[1:]) != wanted:
        raise ValueError(
            f"ws must have the shape [N, {wanted[0]}, {wanted[1]}] for this generator, not {list(ws.shape)}; "
            "latents belong to the generator that they were sampled from"
        )
