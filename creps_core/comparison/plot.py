"""Line plots, drawn with Pillow.

Matplotlib would draw them as well, but ComfyUI does not bring it along, and it is 30 MB for two plots whose type and
colours have to fit a sheet made with Pillow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from .sheet import BACKGROUND, DIM, TEXT, Color, font

PANEL: Color = (24, 26, 30)
_GRID: Color = (48, 51, 58)
_SMOOTH = 3  # lines are drawn this many times larger, and reduced
_SMALL = 14


class Curve(NamedTuple):
    """A line of a plot."""

    x: Sequence[float]
    y: Sequence[float]
    color: Color


class Axis(NamedTuple):
    """Range and marks of an axis; `scale` makes positions of values."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    label: str
    scale: Callable[[float], float] = float

    def at(self, value: float) -> float:
        """0..1 along the axis."""
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
    """A plot with its title and axes; what lies outside the axes is cut off. Marks are dotted lines at values of x."""
    picture = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(picture)
    left, top, right, bottom = 58, 36, width - 8, height - 52
    draw.text((0, 0), title, TEXT, font(18))
    draw.rectangle((left, top, right, bottom), PANEL)
    area = (right - left, bottom - top)
    panel = Image.new("RGB", (area[0] * _SMOOTH, area[1] * _SMOOTH), PANEL)
    pen = ImageDraw.Draw(panel)

    def place(at_x: float, at_y: float) -> tuple[float, float]:
        return at_x * panel.width, (1 - at_y) * panel.height

    for value, text in x.ticks:
        pen.line([place(x.at(value), 0), place(x.at(value), 1)], _GRID, _SMOOTH)
        draw.text((left + x.at(value) * area[0], bottom + 6), text, DIM, font(_SMALL), "mt")
    for value, text in y.ticks:
        pen.line([place(0, y.at(value)), place(1, y.at(value))], _GRID, _SMOOTH)
        draw.text((left - 8, bottom - y.at(value) * area[1]), text, DIM, font(_SMALL), "rm")
    for value, color in marks:
        for part in range(0, 100, 2):
            pen.line([place(x.at(value), part / 100), place(x.at(value), (part + 1) / 100)], color, _SMOOTH)
    for curve in curves:
        points = [place(x.at(u), y.at(v)) for u, v in zip(curve.x, curve.y, strict=True) if math.isfinite(v)]
        pen.line(points, curve.color, 2 * _SMOOTH, "curve")
    picture.paste(panel.resize(area, Image.Resampling.BOX), (left, top))
    draw.text(((left + right) / 2, height - 4), x.label, DIM, font(_SMALL), "mb")
    draw.text((right, 4), y.label, DIM, font(_SMALL), "ra")
    return picture
