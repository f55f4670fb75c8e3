"""Plot the losses of a run and the metrics of its snapshots."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ..comparison import Axis, Color, Curve, canvas, font, line_plot
from .snapshot_metrics import METRIC_PREFIX

_SIZE = (360, 720)  # height, width
_MARGIN = 12
COLORS: dict[str, Color] = {"loss/G": (255, 170, 80), "loss/D": (110, 170, 255)}
_METRIC: Color = (150, 210, 130)
_SMOOTHED = 50  # a point is the mean over this fraction of the run


def loss_plot(stats: Sequence[dict[str, float]]) -> Image.Image | None:
    """Both losses over the images shown, as running means in a long run; below, every metric of the snapshots.

    Args:
        stats: lines of `stats.jsonl`, as `read_stats` gives them.

    Returns:
        RGB of 720 x 360 pixels, and 360 more rows per metric; None with fewer than two values of a loss.
    """
    curves = []
    for name, color in COLORS.items():
        points = np.array([(line["shown"], line[name]) for line in stats if math.isfinite(line.get(name, math.nan))])
        if len(points) > 1:
            count = max(1, len(points) // _SMOOTHED)
            images, losses = (np.convolve(column, np.full(count, 1 / count), "valid").tolist() for column in points.T)
            curves.append(Curve(images, losses, color))
    if not curves:
        return None
    most = max(curve.x[-1] for curve in curves)
    top = max(1.5, *(max(curve.y) for curve in curves))
    x = Axis(0.0, most, [(v, f"{v:,.0f}") for v in _marks(most)], "pictures shown")
    y = Axis(0.0, 1.05 * top, [(v, f"{v:g}") for v in _marks(top)], "")
    metrics = _metrics(stats)
    (height, width), count = _SIZE, 1 + len(metrics)
    image = canvas(height * count, width)
    plot = line_plot(width - 4 * _MARGIN, height - 2 * _MARGIN, "Losses", x, y, curves)
    image.paste(plot, (_MARGIN, _MARGIN))
    for number, (name, curve) in enumerate(metrics.items(), 1):
        high = 1.05 * max(curve.y)
        y = Axis(0.0, high, [(v, f"{v:g}") for v in _marks(high)], "")
        plot = line_plot(width - 4 * _MARGIN, height - 2 * _MARGIN, name, x, y, [curve])
        image.paste(plot, (_MARGIN, number * height + _MARGIN))
    draw, right = ImageDraw.Draw(image), float(image.width - 4 * _MARGIN)
    for text, color in (("discriminator", COLORS["loss/D"]), ("generator", COLORS["loss/G"])):
        draw.text((right, _MARGIN + 6), text, color, font(14), "ra")
        right -= font(14).getlength(text) + 16
    return image


def _metrics(stats: Sequence[dict[str, float]]) -> dict[str, Curve]:
    """By name, the metrics of at least two snapshots with a value above 0."""
    names = dict.fromkeys(name for line in stats for name in line if name.startswith(METRIC_PREFIX))
    curves = {}
    for name in names:
        points = [(line["shown"], line[name]) for line in stats if math.isfinite(line.get(name, math.nan))]
        if len(points) > 1 and max(value for _, value in points) > 0:
            images, values = zip(*points, strict=True)
            curves[name.removeprefix(METRIC_PREFIX)] = Curve(images, values, _METRIC)
    return curves


def _marks(most: float) -> list[float]:
    """Four to nine round values from 0 to `most`."""
    step = 10.0 ** math.floor(math.log10(most))
    step *= next(f for f in (0.2, 0.25, 0.5, 1.0, 2.0) if most / (f * step) <= 8)
    return [step * k for k in range(int(most / step) + 1)]
