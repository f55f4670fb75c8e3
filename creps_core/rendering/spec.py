"""What picture is wanted, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...common.errors import shown
from ..network import GeneratorConfig
from .window import SQUARE, WHOLE_FRAME, Aspect, Window, fit_window, sample_positions

MAX_SUPERSAMPLE = 16
MAX_SIDE = 131072
"""Pixels on a side of a picture, in memory or in a file."""


@dataclass(frozen=True)
class ImageSpec:
    """A picture of a latent: its size, what it shows, and how it is computed. Made and checked once; see `render`.

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

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MAX_SIDE:
                raise ValueError(f"{name} must be a whole number of pixels from 1 to {MAX_SIDE}, not {shown(value)}")
        k = self.supersample
        if type(k) is not int or not 1 <= k <= MAX_SUPERSAMPLE:
            raise ValueError(f"supersample must be a whole number from 1 to {MAX_SUPERSAMPLE}, not {k!r}")
        if self.tile is not None and min(self.tile_size) < 1:
            raise ValueError(f"tile must be at least 1 pixel on both sides, not {self.tile!r}")
        fit_window(self.window, self.height, self.width, self.fit, self.aspect)  # says what is wrong with it

    @property
    def tile_size(self) -> tuple[int, int]:
        """(height, width) of a tile of pixels; the whole picture where none was asked for."""
        if self.tile is None:
            return self.height, self.width
        return (self.tile, self.tile) if isinstance(self.tile, int) else self.tile

    @property
    def shown(self) -> Window:
        """The window after `fit`."""
        return fit_window(self.window, self.height, self.width, self.fit, self.aspect)

    def positions(self) -> tuple[Tensor, Tensor]:
        """Of the samples: [height * supersample] along the height and [width * supersample], float64 on the CPU."""
        top, left, bottom, right = self.shown
        k = self.supersample
        return sample_positions(top, bottom, self.height, k), sample_positions(left, right, self.width, k)


def check_ws(config: GeneratorConfig, ws: Tensor) -> None:
    """Raise ValueError unless ws are latents of this kind of generator, [N, num_ws, w_dim]."""
    wanted = (config.num_ws, config.w_dim)
    if ws.ndim != 3 or tuple(ws.shape[1:]) != wanted:
        raise ValueError(
            f"ws must have the shape [N, {wanted[0]}, {wanted[1]}] for this generator, not {list(ws.shape)}; "
            "latents belong to the generator that they were sampled from"
        )


def check_out(out: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `out` has the shape of the pictures."""
    if out.shape != shape:
        raise ValueError(f"out must have the shape {list(shape)}, not {list(out.shape)}")
