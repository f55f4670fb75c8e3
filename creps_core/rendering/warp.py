"""Images that are rotated by any angle or warped: every pixel has its own column and row code.

Evaluating both lines at every pixel would cost a hundred times as much as the rest. A line is a smooth function of one
coordinate, so it is evaluated once at evenly spaced nodes over the range that the image needs, and interpolated
linearly between them. The number of nodes is measured, not guessed: it is doubled until the image is accurate where
interpolation is worst, half-way between nodes, at a sample of the image's own points.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ...common.progress import Progress, WorkCounter
from ...kernels import (
    SINGLE_THREAD_ELEMENTS,
    PixelStage,
    TablePositions,
    Tile,
    TiledWeights,
    entangle_at,
    line_table,
    mean_of_samples,
    points_at_once,
    split_tiles,
    store_image,
    table_positions,
)
from ..network import COLUMNS, RANK, ROWS, Generator, GeneratorConfig, LineStyles
from .camera import PlaneMap
from .device import precision_of
from .render import LineEvaluator
from .spec import QUALITIES, ImageSpec, check_ws
from .window import Window

log: logging.Logger = logging.getLogger("CREPS")

MOST_NODES = 8192
"""Largest number of intervals of a table on the longer axis: 59 MB per axis for a 512 model."""
_FEWEST_NODES = 256
_SAMPLE = 2048  # points of the image at which the error of the tables is measured
_DIRECT_BELOW = 1024  # points of an image; with fewer, any table would have as many nodes
_EXACT_POINTS = 2048  # evaluated directly at a time: 7 KB per line and point
_LEVELS = 127.5  # of an 8-bit image, per unit of an image
_AXES = (COLUMNS, ROWS)  # the lines along y and along x


class Tables(NamedTuple):
    """Both lines of a latent over a rectangle of the frame."""

    columns: Tensor  # [L, Ty, RANK * B]
    rows: Tensor  # [L, Tx, RANK * B]
    box: Window  # positions of the first and last nodes: (top, left, bottom, right)
    error: float
    """Measured bound of the error of a pixel, in levels of an 8-bit image."""

    def serves(self, box: Window, bound: float) -> bool:
        """Whether new tables over `box` would be no better: these contain it, and keep the bound if any tables can."""
        top, left, bottom, right = self.box
        contains = top <= box[0] and left <= box[1] and bottom >= box[2] and right >= box[3]
        larger = max(bottom - top, right - left) / max(box[2] - box[0], box[3] - box[1])
        return contains and (self.error <= bound or larger < 2)

    def at(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor, TablePositions, TablePositions]:
        """Both tables, and where points of the box, [P] float64 on the CPU each, lie on them."""
        top, left, bottom, right = self.box
        ny, nx = self.columns.shape[1] - 1, self.rows.shape[1] - 1
        device = self.columns.device
        return (
            self.columns,
            self.rows,
            table_positions((y - top) * (ny / (bottom - top)), ny + 1, device),
            table_positions((x - left) * (nx / (right - left)), nx + 1, device),
        )


def render_mapped(
    generator: Generator,
    ws: Tensor,
    plane_map: PlaneMap,
    spec: ImageSpec,
    *,
    progress: Progress | None = None,
    out: Tensor | None = None,
    tables: list[Tables] | None = None,
) -> Tensor:
    """Render latents through a map of the plane: pixel (y, x) shows the frame at `plane_map(y, x)`.

    Memory beyond the image does not depend on its size: 64 MB, plus the tables (at most 14 KB per node for a 512
    model, 8192 nodes).

    Args:
        generator, ws, progress, out: as for `render`.
        plane_map: (y, x) -> (y', x'), float64 tensors [P] on the CPU. It is called three times per point.
        spec: the image. Its window makes the positions that `plane_map` is given; its quality bounds the error that
            the tables cause (small images are evaluated directly, without error); its precision is that of the pixel
            stage, the lines are float32. Backend and tile do not apply.
        tables: earlier tables of the one latent of `ws`, used if they contain this image, replaced by new ones if not.

    Returns:
        [N, C, height, width] float32, about -1..1, on the generator's device; or `out`.

    Raises:
        ValueError: an argument is out of range, or `plane_map` returns values that are not finite.
    """
    device, supersample = generator.mapping.w_avg.device, spec.supersample
    check_ws(generator.config, ws)
    dtype = precision_of(generator, spec.precision).pixels
    out = spec.output(generator, len(ws), out)
    points = _Points(plane_map, spec)
    counter = WorkCounter(progress)
    counter.total = len(ws) * points.count
    with torch.no_grad():
        box = points.box(lambda: counter.add(0))
        for i, styles in enumerate(ws.to(device, torch.float32).split(1)):
            stage = generator.synthesis.pixel_stage(styles).sample(0)
            prepared = TiledWeights(stage, dtype)
            line_styles = generator.synthesis.line_styles(styles)
            found = _tables(generator, line_styles, stage, points, box, tables, lambda: counter.add(0))
            source = found or _DirectLines(generator, line_styles)
            for top, left, bottom, right in points.strips(points_at_once(prepared) if found else _EXACT_POINTS):
                codes = source.at(*points.of(top, left, bottom, right))
                pixels = entangle_at(*codes, prepared, after=counter.add)
                pixels = rearrange(pixels, "c (h w) -> c h w", h=(bottom - top) * supersample)
                store_image(mean_of_samples(pixels, supersample), out[i, :, top:bottom, left:right])
    return out


def _tables(
    generator: Generator,
    styles: LineStyles,
    stage: PixelStage,
    points: _Points,
    box: Window,
    tables: list[Tables] | None,
    check: Callable[[], None],
) -> Tables | None:
    """Tables for the points of an image: those given if they serve, else new ones, which replace them. None if direct
    evaluation is wanted, or is as fast."""
    bound = points.bound
    if tables and tables[0].serves(box, bound):
        return tables[0]
    if not bound or points.count <= _DIRECT_BELOW:
        return None
    exact = TiledWeights(stage, torch.float32)
    # Tables for a single image may have at most as many nodes as the image has points on both lines.
    most = 2 * points.count if tables is None else None
    found = make_tables(generator, styles, exact, _grown(box) if tables else box, points.sample(), bound, most, check)
    if tables is not None and found is not None:
        tables[:] = [found]
    return found


def make_tables(
    generator: Generator,
    styles: LineStyles,
    exact: TiledWeights,
    box: Window,
    points: tuple[Tensor, Tensor],
    bound: float,
    most: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> Tables | None:
    """Tables of a latent's lines over a rectangle, as fine as the bound of the error requires.

    Tables of N and of 2 N intervals are compared half-way between those nodes of the first that are next to `points`,
    where the second has nodes and is exact: that is the error of N where it is largest. The tables of 2 N are used as
    soon as that error is within the bound. Their own error is at most half of it (a quarter where lines are smooth,
    half at the kinks of leaky ReLU); the rest is a margin for points that the sample missed. Tables never exceed
    `MOST_NODES`; if the bound cannot be reached, a warning is logged, and `Tables.error` holds what was reached.

    Args:
        generator, styles: of one latent.
        exact: its pixel stage in float32.
        box: (top, left, bottom, right) of the positions needed, not reversed.
        points: [P] y and x, positions at which the error is measured.
        bound: in levels of an 8-bit image.
        most: largest number of nodes of both tables together.
        check: called now and then; an exception from it ends the work.

    Returns:
        The tables, or None if they would need more than `most` nodes.
    """
    extents = (box[2] - box[0], box[3] - box[1])
    lines = LineEvaluator(generator, torch.float32, lambda positions: check())

    def nodes(axis: int, intervals: int) -> Tensor:
        return torch.linspace(box[axis], box[axis + 2], intervals + 1, dtype=torch.float64)

    intervals = [max(2, math.ceil(_FEWEST_NODES * extent / max(extents))) for extent in extents]
    fine = [line_table(lines.evaluate(styles, nodes(i, intervals[i]), line)) for i, line in enumerate(_AXES)]
    while True:
        coarse, fine = fine, []
        for axis, line in enumerate(_AXES):
            between = line_table(lines.evaluate(styles, nodes(axis, 2 * intervals[axis])[1::2], line))
            fine.append(_interleaved(coarse[axis], between))
        error = _midpoint_error(coarse, fine, box, points, exact, check)
        intervals = [2 * n for n in intervals]
        if error <= bound or 2 * max(intervals) > MOST_NODES:
            break
        if most is not None and 2 * sum(intervals) > most:
            return None
    if error > bound:
        log.warning(
            "tables of %d nodes leave errors of up to %.2f levels, not %.2f: the view covers much of the frame",
            max(intervals),
            error,
            bound,
        )
    return Tables(fine[0], fine[1], box, error)


def _midpoint_error(
    coarse: Sequence[Tensor],
    fine: Sequence[Tensor],
    box: Window,
    points: tuple[Tensor, Tensor],
    exact: TiledWeights,
    check: Callable[[], None],
) -> float:
    """Largest difference of a pixel between tables of N and of 2 N intervals half-way between the nodes of the coarse
    ones next to `points`, in levels of an 8-bit image."""
    ends, middles = [], []
    for axis in range(2):
        intervals = coarse[axis].shape[1] - 1
        index = ((points[axis] - box[axis]) * (intervals / (box[axis + 2] - box[axis]))).long()
        index = index.clamp_(0, intervals - 1).to(fine[axis].device)
        half = torch.full(index.shape, 0.5, device=index.device)
        ends.append(TablePositions(index, half))
        middles.append(TablePositions(2 * index, 2 * half))
    interpolated = entangle_at(coarse[0], coarse[1], ends[0], ends[1], exact, after=lambda _: check())
    evaluated = entangle_at(fine[0], fine[1], middles[0], middles[1], exact, after=lambda _: check())
    return (interpolated - evaluated).abs().max().item() * _LEVELS


def tables_estimate(config: GeneratorConfig) -> int:
    """Largest number of bytes that `render_mapped` takes on the generator's device, beyond weights and image."""
    node = len(config.biline_levels) * config.biline_channels * RANK * 4
    return 3 * (MOST_NODES + 1) * node + (384 << 20)


class _Points:
    """The points of the frame that an image shows, one per sample."""

    def __init__(self, plane_map: PlaneMap, spec: ImageSpec):
        self.plane_map, self.bound = plane_map, QUALITIES[spec.quality]
        self.height, self.width, self.supersample = spec.height, spec.width, spec.supersample
        self.y, self.x = spec.positions()
        self.count = len(self.y) * len(self.x)

    def of(self, top: int, left: int, bottom: int, right: int) -> tuple[Tensor, Tensor]:
        """The points of a rectangle of pixels, [P] y and x."""
        k = self.supersample
        return self._map(*torch.meshgrid(self.y[top * k : bottom * k], self.x[left * k : right * k], indexing="ij"))

    def sample(self) -> tuple[Tensor, Tensor]:
        """A fixed random sample of the points, [P] y and x."""
        random = torch.Generator().manual_seed(0)
        return self._map(
            self.y[torch.randint(len(self.y), (_SAMPLE,), generator=random)],
            self.x[torch.randint(len(self.x), (_SAMPLE,), generator=random)],
        )

    def strips(self, points: int) -> Iterator[Tile]:
        """Rectangles of pixels with about `points` points each."""
        pixels = max(1, points // self.supersample**2)
        width = min(self.width, pixels)
        return split_tiles(self.height, self.width, (max(1, pixels // width), width))

    def box(self, check: Callable[[], None]) -> Window:
        """The smallest rectangle around all points, slightly enlarged."""
        top = left = math.inf
        bottom = right = -math.inf
        for strip in self.strips(SINGLE_THREAD_ELEMENTS):
            check()
            y, x = self.of(*strip)
            top, bottom = min(top, y.min().item()), max(bottom, y.max().item())
            left, right = min(left, x.min().item()), max(right, x.max().item())
        # Tables divide by the extent of an axis: it must not be 0.
        room = max(bottom - top, right - left, 1e-12) * 1e-6
        return top - room, left - room, bottom + room, right + room

    def _map(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        y, x = (value.flatten() for value in self.plane_map(y, x))
        if not (torch.isfinite(y).all() and torch.isfinite(x).all()):
            raise ValueError("the map of the plane gives positions that are not finite")
        return y, x


class _DirectLines:
    """Both lines evaluated at the points themselves, in place of tables."""

    def __init__(self, generator: Generator, styles: LineStyles):
        self.lines, self.styles = LineEvaluator(generator, torch.float32, lambda positions: None), styles

    def at(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor, TablePositions, TablePositions]:
        """As `Tables.at`: a node per point, and one more, since a point lies between two nodes."""
        y, x = torch.cat([y, y[-1:]]), torch.cat([x, x[-1:]])
        columns = line_table(self.lines.evaluate(self.styles, y, COLUMNS))
        rows = line_table(self.lines.evaluate(self.styles, x, ROWS))
        index = torch.arange(len(y) - 1, device=columns.device)
        place = TablePositions(index, torch.zeros(len(index), device=columns.device))
        return columns, rows, place, place


def _interleaved(nodes: Tensor, between: Tensor) -> Tensor:
    """[L, n + 1, F] and [L, n, F] -> [L, 2 n + 1, F]."""
    result = nodes.new_empty((nodes.shape[0], nodes.shape[1] + between.shape[1], nodes.shape[2]))
    result[:, ::2], result[:, 1::2] = nodes, between
    return result


def _grown(box: Window) -> Window:
    """The rectangle with a margin of a quarter of its size, since the next frame of a path may need a little more."""
    more_y, more_x = (box[2] - box[0]) / 4, (box[3] - box[1]) / 4
    return box[0] - more_y, box[1] - more_x, box[2] + more_y, box[3] + more_x
