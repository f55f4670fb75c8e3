"""An evaluation as a picture: what can be drawn as lines."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import ImageDraw

from ..comparison import Axis, Color, Curve, canvas, font, line_plot
from .distance import Row
from .evaluate import Evaluation
from .scale import Scale

_WIDTH, _HEIGHT, _MARGIN, _SMALL = 720, 320, 12, 14
_FAKES: Color = (255, 170, 80)
_REALS: Color = (110, 170, 255)


def evaluation_plot(found: Evaluation) -> np.ndarray:
    """Distances by level of the pyramid and aliasing by size, below the numbers as text: uint8 [H, 720, 3]."""
    panels = [_distances(row) for row in found.rows]
    if found.scale is not None and any(math.isfinite(value) for value in found.scale.aliasing.values()):
        panels.append(_aliasing(found.scale))
    lines = [f"{name} {value:.5g}" for finding in found.findings for name, value in finding.values.items()]
    head = 2 * _MARGIN + 24 * max(1, len(lines)) if lines or not panels else 0
    sheet = canvas(head + _HEIGHT * len(panels), _WIDTH)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines if lines or panels else ["nothing was measured"]):
        draw.text((_MARGIN, _MARGIN + 24 * number), line, (230, 230, 230), font(18))
    for number, (title, x, y, curves, names) in enumerate(panels):
        top = head + number * _HEIGHT
        plot = line_plot(_WIDTH - 4 * _MARGIN, _HEIGHT - 2 * _MARGIN, title, x, y, curves)
        sheet.paste(plot, (_MARGIN, top + _MARGIN))
        right = float(_WIDTH - 4 * _MARGIN)
        for name, curve in zip(names, curves, strict=True):
            draw.text((right, top + _MARGIN + 6), name, curve.color, font(_SMALL), "ra")
            right -= font(_SMALL).getlength(name) + 16
    return np.asarray(sheet)


_Panel = tuple[str, Axis, Axis, list[Curve], list[str]]


def _octaves(sides: Sequence[int], label: str) -> Axis:
    low, high = min(sides), max(max(sides), min(sides) + 1)
    return Axis(low, high, [(side, str(side)) for side in sides], label, math.log2)


def _distances(row: Row) -> _Panel:
    sides = sorted(row.fakes.levels)
    curves = [
        Curve(sides, [of.levels[side] for side in sides], color)
        for of, color in ((row.fakes, _FAKES), (row.reals, _REALS))
    ]
    top = max(1.0, *(max(curve.y) for curve in curves)) * 1.05
    y = Axis(0.0, top, [(top * part / 4, f"{top * part / 4:.3g}") for part in range(5)], "")
    title = f"Distance x 1000 at {row.side} x {row.side}"
    return title, _octaves(sides, "level of the pyramid, pixels"), y, curves, ["generated", "real"]


def _aliasing(found: Scale) -> _Panel:
    known = {size: value for size, value in found.aliasing.items() if math.isfinite(value)}
    sizes = sorted(known)
    low = 10 * math.floor(min([*known.values(), -10]) / 10)
    high = 10 * math.ceil(max([*known.values(), 0]) / 10)
    y = Axis(low, high, [(value, str(value)) for value in range(low, high + 1, 10)], "")
    curve = Curve(sizes, [known[size] for size in sizes], _FAKES)
    return "Aliasing, dB of all detail", _octaves(sizes, "pixels per side"), y, [curve], ["less is better"]
