"""Line plots, drawn with Pillow.

Matplotlib is not used: ComfyUI does not include it, and it is 30 MB for plots whose font and colours have to match a
sheet drawn with Pillow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from .sheet import BACKGROUND, DIM, TEXT, Color, font

PANEL: Color = (24, 26, 30)
_GRID: Color = (48, 51, 58)
_SMOOTH = 3  # oversampling of the lines
_SMALL = 14


class Curve(NamedTuple):
    """A line of a plot."""

    x: Sequence[float]
    y: Sequence[float]
    color: Color


class Axis(NamedTuple):
    """Range and ticks of an axis; `scale` maps values to positions."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    label: str
    scale: Callable[[float], float] = float

    def at(self, value: float) -> float:
        """Position of a value along the axis, 0..1."""
        low, high = self.scale(self.low), self.scale(self.high)
        return (self.scale(value) - low) / (high - low)


def line_plot(
    width: int,
    height: int,
    title: str,
    x: Axis,
    y: Axis,
    curves: Sequence[Curve],
    marks: Sequence[tuple[float, Color]] = (),
) -> Image.Image:
    """Plot curves, clipped to the axes. `marks` are dotted vertical lines at values of x."""
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = 58, 36, width - 8, height - 52
    draw.text((0, 0), title, TEXT, font(18))
    draw.rectangle((left, top, right, bottom), PANEL)
    area = (right - left, bottom - top)
    panel = Image.new("RGB", (area[0] * _SMOOTH, area[1] * _SMOOTH), PANEL)
    pen = ImageDraw.Draw(panel)

    def point(at_x: float, at_y: float) -> tuple[float, float]:
        return at_x * panel.width, (1 - at_y) * panel.height

    for value, text in x.ticks:
        pen.line([point(x.at(value), 0), point(x.at(value), 1)], _GRID, _SMOOTH)
        draw.text((left + x.at(value) * area[0], bottom + 6), text, DIM, font(_SMALL), "mt")
    for value, text in y.ticks:
        pen.line([point(0, y.at(value)), point(1, y.at(value))], _GRID, _SMOOTH)
        draw.text((left - 8, bottom - y.at(value) * area[1]), text, DIM, font(_SMALL), "rm")
    for value, color in marks:
        for part in range(0, 100, 2):
            pen.line([point(x.at(value), part / 100), point(x.at(value), (part + 1) / 100)], color, _SMOOTH)
    for curve in curves:
        points = [point(x.at(u), y.at(v)) for u, v in zip(curve.x, curve.y, strict=True) if math.isfinite(v)]
        pen.line(points, curve.color, 2 * _SMOOTH, "curve")
    picture.paste(panel.resize(area, Image.Resampling.BOX), (left, top))
    draw.text(((left + right) / 2, height - 4), x.label, DIM, font(_SMALL), "mb")
    draw.text((right, 4), y.label, DIM, font(_SMALL), "ra")
    return picture
