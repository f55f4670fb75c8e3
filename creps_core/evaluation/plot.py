"""An evaluation as an image: plots of what can be drawn as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import singledispatch
from typing import NamedTuple

import numpy as np
from PIL import ImageDraw

from ..comparison import Axis, Color, Curve, canvas, font, line_plot
from .distance_table import DistanceRow
from .evaluate import Evaluation
from .held_out import DistanceReport
from .metrics import METRICS
from .scale import ScaleReport

_WIDTH, _HEIGHT, _MARGIN, _SMALL_FONT, _FONT, _LINE = 720, 320, 12, 14, 18, 24
_GENERATED: Color = (255, 170, 80)
_TRAINING: Color = (110, 170, 255)


class _Panel(NamedTuple):
    title: str
    x: Axis
    y: Axis
    curves: list[Curve]
    names: list[str]  # of the curves


def evaluation_plot(evaluation: Evaluation) -> np.ndarray:
    """The values as text, above plots of distances by pyramid level and of aliasing by size: uint8 [H, 720, 3]."""
    panels = [panel for section in evaluation.sections.values() for panel in _panels(section)]
    lines = [f"{name} {value:.5g}" for finding in evaluation.findings for name, value in finding.values.items()]
    head = 2 * _MARGIN + _LINE * max(1, len(lines)) if lines or not panels else 0
    sheet = canvas(head + _HEIGHT * len(panels), _WIDTH)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines if lines or panels else ["nothing was measured"]):
        draw.text((_MARGIN, _MARGIN + _LINE * number), line, (230, 230, 230), font(_FONT))
    for number, (title, x, y, curves, names) in enumerate(panels):
        top = head + number * _HEIGHT
        plot = line_plot(_WIDTH - 4 * _MARGIN, _HEIGHT - 2 * _MARGIN, title, x, y, curves)
        sheet.paste(plot, (_MARGIN, top + _MARGIN))
        right = float(_WIDTH - 4 * _MARGIN)
        for name, curve in zip(names, curves, strict=True):
            draw.text((right, top + _MARGIN + 6), name, curve.color, font(_SMALL_FONT), "ra")
            right -= font(_SMALL_FONT).getlength(name) + 16
    return np.asarray(sheet)


@singledispatch
def _panels(section: object) -> list[_Panel]:
    """The plots of a section, by its type."""
    return []


@_panels.register
def _(section: DistanceReport) -> list[_Panel]:
    return [_distances(row) for row in section.rows]


@_panels.register
def _(section: ScaleReport) -> list[_Panel]:
    return [_aliasing(section)] if any(map(math.isfinite, section.aliasing.values())) else []


def _octaves(sides: Sequence[int], label: str) -> Axis:
    low, high = min(sides), max(max(sides), min(sides) + 1)
    return Axis(low, high, [(side, str(side)) for side in sides], label, math.log2)


def _distances(row: DistanceRow) -> _Panel:
    sides = sorted(row.generated.levels)
    curves = [
        Curve(sides, [of.levels[side] for side in sides], color)
        for of, color in ((row.generated, _GENERATED), (row.training, _TRAINING))
    ]
    top = max(1.0, *(max(curve.y) for curve in curves)) * 1.05
    y = Axis(0.0, top, [(top * part / 4, f"{top * part / 4:.3g}") for part in range(5)], "")
    title = f"Distance {METRICS['swd'].unit} at {row.side} x {row.side}"
    return _Panel(title, _octaves(sides, "level of the pyramid, pixels"), y, curves, ["generated", "real"])


def _aliasing(scale: ScaleReport) -> _Panel:
    known = {size: value for size, value in scale.aliasing.items() if math.isfinite(value)}
    sizes = sorted(known)
    low = 10 * math.floor(min([*known.values(), -10]) / 10)
    high = 10 * math.ceil(max([*known.values(), 0]) / 10)
    y = Axis(low, high, [(value, str(value)) for value in range(low, high + 1, 10)], "")
    curve = Curve(sizes, [known[size] for size in sizes], _GENERATED)
    title = f"Aliasing, {METRICS['scale'].unit} of all detail"
    return _Panel(title, _octaves(sizes, "pixels per side"), y, [curve], ["less is better"])
