"""Pictures that are turned by any angle or bent: a column and a row code for every pixel.

Evaluating both lines at every pixel would cost a hundred times the rest. A line is a smooth function of one
coordinate: it is evaluated once at evenly spaced nodes over the range that the picture needs, and interpolated
linearly between them. How many nodes is measured, not guessed: their number is doubled until the picture that they
give is right where interpolation is worst, half-way between nodes, at a sample of the picture's own points.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ...kernels import (
    SINGLE_THREAD_ELEMENTS,
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
from .camera import Mapping
from .device import precision_of
from .render import LineEvaluator, Progress, WorkCounter
from .spec import ImageSpec, check_out, check_ws
from .window import WHOLE_FRAME, Window

log = logging.getLogger("CREPS")

QUALITIES = {"draft": 2.0, "good": 0.25, "best": 0.06, "exact": 0.0}
"""Largest error of a pixel that the tables may cause, in levels of an 8-bit picture; `exact` does without tables."""
MOST_NODES = 8192
"""Intervals of a table on the longer axis: 59 MB per axis for a 512 model."""
_FEWEST_NODES = 256
_SAMPLE = 2048  # points of the picture at which the tables are judged
_DIRECT_BELOW = 1024  # points of a picture: any tables would have as many nodes
_EXACT_POINTS = 2048  # evaluated directly at a time: 7 KB per line and point
_LEVELS = 127.5  # of an 8-bit picture, per unit of a picture


class Tables(NamedTuple):
    """Both lines of a latent over a box of the frame."""

    columns: Tensor  # [L, Ty, RANK * B]
    rows: Tensor  # [L, Tx, RANK * B]
    box: Window  # the positions of the first and last nodes: (top, left, bottom, right)
    error: float
    """Bound of the error of a pixel, as measured, in levels of an 8-bit picture."""

    def serves(self, box: Window, bound: float) -> bool:
        """Whether new tables over this box would be no better: these contain it, and keep the bound if any could."""
        top, left, bottom, right = self.box
        contains = top <= box[0] and left <= box[1] and bottom >= box[2] and right >= box[3]
        larger = max(bottom - top, right - left) / max(box[2] - box[0], box[3] - box[1])
        return contains and (self.error <= bound or larger < 2)

    def at(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor, TablePositions, TablePositions]:
        """Both tables, and on them the places of points of the box, [P] float64 on the CPU each."""
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
    mapping: Mapping,
    *,
    height: int,
    width: int,
    window: Window = WHOLE_FRAME,
    fit: str = "stretch",
    supersample: int = 1,
    quality: str = "good",
    precision: str = "auto",
    progress: Progress | None = None,
    out: Tensor | None = None,
    tables: list[Tables] | None = None,
) -> Tensor:
    """Render latents through a map of the plane: pixel (y, x) shows the frame at `mapping(y, x)`.

    Memory beyond the picture does not depend on its size: 64 MB, plus the tables (at most 14 KB per node for a 512
    model, 8192 nodes).

    Args:
        generator, ws: as for `render`.
        mapping: (y, x) -> (y', x'), float64 tensors [P] on the CPU. It is called three times per point.
        height, width, window, fit, supersample: as for `render`: they make the positions that `mapping` is given.
        quality: bound of the error that the tables cause, a name in `QUALITIES`. Small pictures are evaluated
            directly, without error.
        precision: of the per-pixel stage; the lines are float32.
        progress: as for `render`.
        out: as for `render`.
        tables: tables made before for the one latent of `ws`, if they contain this picture; replaced by new ones if
            not.

    Returns:
        [N, C, height, width] float32, about -1..1, on the generator's device; or `out`.

    Raises:
        ValueError: an argument is out of range; `mapping` gives something that is not finite.
    """
    config, device = generator.config, generator.mapping.w_avg.device
    spec = ImageSpec(height, width, window, fit, supersample, precision, aspect=generator.aspect)
    check_ws(config, ws)
    if quality not in QUALITIES:
        raise ValueError(f"quality must be one of {list(QUALITIES)}, not {quality!r}")
    dtype = precision_of(generator, precision).pixels
    shape = (len(ws), config.img_channels, height, width)
    if out is None:
        out = torch.empty(shape, device=device)
    check_out(out, shape)

    bound = QUALITIES[quality]
    points = _Points(mapping, spec)
    counter = WorkCounter(progress)
    counter.total = len(ws) * height * width * supersample**2
    with torch.no_grad():
        box = points.box(lambda: counter.add(0))
        for i, styles in enumerate(ws.to(device, torch.float32).split(1)):
            stage = generator.synthesis.pixel_stage(styles).sample(0)
            prepared = TiledWeights(stage, dtype)
            line_styles = generator.synthesis.line_styles(styles)
            source = None
            if tables and tables[0].serves(box, bound):
                source = tables[0]
            elif bound and points.count > _DIRECT_BELOW:
                source = make_tables(
                    generator,
                    line_styles,
                    TiledWeights(stage, torch.float32),
                    _grown(box) if tables else box,
                    points.sample(),
                    bound,
                    # Tables that serve this picture alone are not worth more nodes than it has points on both lines.
                    2 * points.count if tables is None else None,
                    lambda: counter.add(0),
                )
                if tables is not None and source is not None:
                    tables[:] = [source]
            step = points_at_once(prepared) if source else _EXACT_POINTS
            source = source or _Direct(generator, line_styles)
            for top, left, bottom, right in points.strips(step):
                codes = source.at(*points.of(top, left, bottom, right))
                picture = entangle_at(*codes, prepared, after=counter.add)
                picture = rearrange(picture, "c (h w) -> c h w", h=(bottom - top) * supersample)
                picture = mean_of_samples(picture, supersample)
                store_image(picture, out[i, :, top:bottom, left:right])
    return out


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
    """Tables of a latent's lines over a box, as fine as a bound of the error asks.

    Tables of N and 2 N intervals are compared at places half-way between the nodes of the first, those next to
    `points`, where the second has nodes and is exact: that is the error of N at its worst places. The tables of
    2 N are taken once that is within the bound. Theirs is half of it or less (a quarter where lines are smooth, half at
    the kinks that leaky ReLU puts into them); the rest is room for points that the sample missed. Tables never exceed
    `MOST_NODES`; a bound that is out of reach is logged, and `Tables.error` says what was reached.

    Args:
        generator, styles: of one latent.
        exact: its stage in float32.
        box: (top, left, bottom, right) of the positions needed, not reversed.
        points: [P] y and x, positions at which the error is measured.
        bound: in levels of an 8-bit picture.
        most: nodes of both tables together that are worth their while.
        check: called now and then; may raise.

    Returns:
        The tables, or None if they would need more than `most` nodes.
    """
    top, left, bottom, right = box
    extents = (bottom - top, right - left)
    lines = LineEvaluator(generator, torch.float32, lambda positions: check())

    def nodes(axis: int, intervals: int) -> Tensor:
        return torch.linspace(box[axis], box[axis + 2], intervals + 1, dtype=torch.float64)

    intervals = [max(2, math.ceil(_FEWEST_NODES * extent / max(extents))) for extent in extents]
    fine = [line_table(lines.evaluate(styles, nodes(i, intervals[i]), line)) for i, line in enumerate((COLUMNS, ROWS))]
    while True:
        coarse, error = fine, math.inf
        fine = []
        for axis, line in enumerate((COLUMNS, ROWS)):
            between = line_table(lines.evaluate(styles, nodes(axis, 2 * intervals[axis])[1::2], line))
            fine.append(_interleaved(coarse[axis], between))
        ends, middles = [], []
        for axis in range(2):
            index = ((points[axis] - box[axis]) * (intervals[axis] / extents[axis])).long()
            index = index.clamp_(0, intervals[axis] - 1).to(fine[axis].device)
            half = torch.full(index.shape, 0.5, device=index.device)
            ends.append(TablePositions(index, half))
            middles.append(TablePositions(2 * index, 2 * half))
        rough = entangle_at(coarse[0], coarse[1], ends[0], ends[1], exact, after=lambda _: check())
        middle = entangle_at(fine[0], fine[1], middles[0], middles[1], exact, after=lambda _: check())
        error = (rough - middle).abs().max().item() * _LEVELS
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


def tables_estimate(config: GeneratorConfig) -> int:
    """Bytes that `render_mapped` takes at most on the generator's device, beyond weights and picture."""
    node = len(config.biline_levels) * config.biline_channels * RANK * 4
    return 3 * (MOST_NODES + 1) * node + (384 << 20)


class _Points:
    """The points of a picture, in the frame."""

    def __init__(self, mapping: Mapping, spec: ImageSpec):
        self.mapping, self.height, self.width, self.supersample = mapping, spec.height, spec.width, spec.supersample
        self.y, self.x = spec.positions()
        self.count = len(self.y) * len(self.x)

    def of(self, top: int, left: int, bottom: int, right: int) -> tuple[Tensor, Tensor]:
        """Those of a box of pixels, [P] y and x."""
        k = self.supersample
        return self._map(*torch.meshgrid(self.y[top * k : bottom * k], self.x[left * k : right * k], indexing="ij"))

    def sample(self) -> tuple[Tensor, Tensor]:
        """Some of them, the same ones every time."""
        random = torch.Generator().manual_seed(0)
        return self._map(
            self.y[torch.randint(len(self.y), (_SAMPLE,), generator=random)],
            self.x[torch.randint(len(self.x), (_SAMPLE,), generator=random)],
        )

    def strips(self, points: int) -> Iterator[Tile]:
        """Boxes of pixels with about so many points."""
        pixels = max(1, points // self.supersample**2)
        width = min(self.width, pixels)
        return split_tiles(self.height, self.width, (max(1, pixels // width), width))

    def box(self, check: Callable[[], None]) -> Window:
        """The smallest box around them."""
        top = left = math.inf
        bottom = right = -math.inf
        for strip in self.strips(SINGLE_THREAD_ELEMENTS):
            check()
            y, x = self.of(*strip)
            top, bottom = min(top, y.min().item()), max(bottom, y.max().item())
            left, right = min(left, x.min().item()), max(right, x.max().item())
        # No axis is without extent: tables divide by it.
        room = max(bottom - top, right - left, 1e-12) * 1e-6
        return top - room, left - room, bottom + room, right + room

    def _map(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        y, x = (value.flatten() for value in self.mapping(y, x))
        if not (torch.isfinite(y).all() and torch.isfinite(x).all()):
            raise ValueError("the mapping gives positions that are not finite")
        return y, x


class _Direct:
    """Both lines evaluated at the points themselves."""

    def __init__(self, generator: Generator, styles: LineStyles):
        self.lines, self.styles = LineEvaluator(generator, torch.float32, lambda positions: None), styles

    def at(self, y: Tensor, x: Tensor) -> tuple[Tensor, Tensor, TablePositions, TablePositions]:
        """Tables with a node per point (and one more: a place lies between two), and the places on them."""
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
    """The box with a quarter of its size around it: the next frame of a path may need a little more."""
    more_y, more_x = (box[2] - box[0]) / 4, (box[3] - box[1]) / 4
    return box[0] - more_y, box[1] - more_x, box[2] + more_y, box[3] + more_x
