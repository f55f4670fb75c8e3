"""Where the samples of an image lie: windows into the frame, and positions along an axis."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...common.errors import quoted

Window = tuple[float, float, float, float]
"""(top, left, bottom, right) in coordinates of the frame, which extends from 0 to 1 along both axes."""
Aspect = tuple[int, int]
"""Aspect ratio of a generator's frame, (width, height); see `Generator.aspect`."""
SQUARE: Aspect = (1, 1)

WHOLE_FRAME: Window = (0.0, 0.0, 1.0, 1.0)
FITS = ("crop", "extend", "stretch")
MAX_POSITION = 1e9
"""Largest |edge| of a window; beyond it, float64 cannot separate neighbouring pixels of the finest detail."""


def sample_positions(start: float, stop: float, size: int, supersample: int = 1) -> Tensor:
    """Positions of the samples along one axis, [size * supersample] float64.

    Pixel i of n lies at `start + (stop - start) * i / (n - 1)`, both ends included, as in the authors' code; a
    single pixel lies at `start`. With k samples per pixel, they are spread evenly over the width of the pixel
    (half a pixel to both sides); a single pixel then covers the whole interval.
    """
    if supersample == 1:
        return torch.linspace(start, stop, size, dtype=torch.float64)
    offsets = (torch.arange(supersample, dtype=torch.float64) + 0.5) / supersample
    if size == 1:
        return start + (stop - start) * offsets
    pixels = torch.arange(size, dtype=torch.float64)[:, None] + (offsets - 0.5)
    return (start + (stop - start) / (size - 1) * pixels).flatten()


def fit_window(window: Window, height: int, width: int, fit: str = "stretch", aspect: Aspect = SQUARE) -> Window:
    """Adapt a window to the size of an image.

    Args:
        window: the requested window.
        height, width: of the image in pixels.
        fit: `stretch` keeps the window, so the scale may differ between the axes. The others keep the centre and make
            the distance of neighbouring pixels equal along both axes: `crop` returns the largest such window inside
            the requested one, `extend` the smallest around it.
        aspect: of the frame; the interval 0..1 is longer along its longer side.

    Raises:
        ValueError: the fit is unknown, or the window has no extent or is not finite.
    """
    if fit not in FITS:
        raise ValueError(f"fit must be one of {list(FITS)}, not {fit!r}")
    if len(window) != 4 or not all(abs(v) <= MAX_POSITION for v in window):
        raise ValueError(
            "window must be four finite numbers (top, left, bottom, right) from "
            f"-{MAX_POSITION:g} to {MAX_POSITION:g}, not {quoted(tuple(window))}"
        )
    top, left, bottom, right = window
    if top == bottom or left == right:
        raise ValueError(f"window {tuple(window)} is empty: bottom must differ from top, and right from left")
    if fit == "stretch":
        return top, left, bottom, right
    longer = max(aspect)
    gaps_y, gaps_x = max(height - 1, 1) * longer / aspect[1], max(width - 1, 1) * longer / aspect[0]
    steps = (abs(bottom - top) / gaps_y, abs(right - left) / gaps_x)
    step = min(steps) if fit == "crop" else max(steps)
    top, bottom = _about_centre(top, bottom, step * gaps_y)
    left, right = _about_centre(left, right, step * gaps_x)
    return top, left, bottom, right


def frame_size(side: int, aspect: Aspect) -> tuple[int, int]:
    """(height, width) of an image of the whole frame.

    Args:
        side: longer side of the image in pixels.
        aspect: of the frame.
    """
    width, height = aspect
    longer = max(width, height)
    return max(1, round(side * height / longer)), max(1, round(side * width / longer))


def full_size(height: int, width: int, aspect: Aspect, *, even: bool = False) -> tuple[int, int]:
    """(height, width), where one that is 0 is derived from the other by the aspect of the frame.

    Args:
        even: the derived one is even, as videos need it.

    Raises:
        ValueError: both are 0.
    """
    if not height and not width:
        raise ValueError("width and height are both 0: give at least one of them")
    across, down = aspect
    unit = 2 if even else 1

    def derived(exact: float) -> int:
        return max(1, round(exact / unit)) * unit

    return height or derived(width * down / across), width or derived(height * across / down)


def same_area_window(window: Window, height: int, width: int, other_height: int, other_width: int) -> Window:
    """The window for an image of another size so that its pixels cover the same area.

    The centres of the first and last pixels lie on the edges of a window, so half of each pixel lies outside: more for
    large pixels than for small ones. Tools that scale images preserve the area instead. A small image that is to be
    scaled up and laid over a large one needs a narrower window, or the two are displaced by up to half a large pixel.

    Args:
        window: of the image of height x width.
        other_height, other_width: of the other image.
    """

    def axis(start: float, stop: float, size: int, other: int) -> tuple[float, float]:
        pixel = (stop - start) / max(size - 1, 1)
        inset = (size * pixel / other - pixel) / 2
        return start + inset, stop - inset

    top, bottom = axis(window[0], window[2], height, other_height)
    left, right = axis(window[1], window[3], width, other_width)
    return top, left, bottom, right


def _about_centre(start: float, stop: float, extent: float) -> tuple[float, float]:
    if math.isclose(abs(stop - start), extent, rel_tol=1e-12):
        return start, stop  # avoids rounding: the whole frame stays the whole frame
    centre, half = (start + stop) / 2, math.copysign(extent / 2, stop - start)
    return centre - half, centre + half
