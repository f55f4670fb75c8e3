"""The per-pixel stage at scattered points, each with a column code and a row code of its own.

Turned and warped images are no outer products of lines. The codes of a point are interpolated linearly in tables of
the two lines and multiplied element by element: sum_q X[c, q](y) Y[c, q](x). The rest of the stage is that of every
other image: the points go to `tiled` as an image of one row, of lines of rank 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import Tensor

from .tiled import BUFFER_BYTES, TiledBackend, TiledWeights
from .workers import run_parallel

PRODUCT_BYTES, DEVICE_PRODUCT_BYTES = 32 << 20, 192 << 20
"""Most memory of the products of the points that are evaluated at once, on a CPU and on a GPU."""
SINGLE_THREAD_ELEMENTS = 32768
"""Elements up to which torch computes an element-wise operation in one thread. Several threads wait for each other,
which costs far more than it saves when the machine has other work to do."""
_POINTS = 512  # interpolated at a time: their codes, 1 KB per line each, stay in the L2 cache
_DEVICE_POINTS = 65536
_SAMPLES = 4096  # per tile of the stage


class TablePositions(NamedTuple):
    """Positions in a table: between nodes `node` and `node + 1`, at this fraction of the way."""

    node: Tensor  # [P] int64
    fraction: Tensor  # [P] float32


def table_positions(nodes: Tensor, count: int, device: torch.device) -> TablePositions:
    """Positions in units of nodes, [P] float64 in 0 .. count - 1, in a table of `count` >= 2 nodes on a device."""
    node = nodes.floor().clamp_(0, count - 2)
    return TablePositions(node.long().to(device), (nodes - node).float().to(device))


def line_table(line: Tensor) -> Tensor:
    """A line [L, B, T, rank] -> its table [L, T, rank * B]: the code of a node is contiguous per level."""
    return rearrange(line, "level b t rank -> level t (rank b)").contiguous()


def points_at_once(weights: TiledWeights) -> int:
    """Number of points that `entangle_at` should be given at once."""
    cpu = weights.image.device.type == "cpu"
    room = (PRODUCT_BYTES if cpu else DEVICE_PRODUCT_BYTES) // (
        len(weights.decoders) * (weights.image.shape[1] - 1) * 4
    )
    return min(room, SINGLE_THREAD_ELEMENTS) if cpu else room


def entangle_at(
    columns: Tensor,
    rows: Tensor,
    y: TablePositions,
    x: TablePositions,
    weights: TiledWeights,
    *,
    after: Callable[[int], None] = lambda points: None,
) -> Tensor:
    """The image at scattered points.

    Args:
        columns: [L, T, rank * B] float32, a `line_table` of line 0.
        rows: the same of line 1; its number of nodes may differ.
        y, x: [P] points each, on the tables' device.
        weights: the stage of one latent, packed for `tiled` in the dtype of the matrix products.
        after: called in the calling thread with numbers of points done, which add up to P; an exception from it ends
            the work.

    Returns:
        [C, P] float32, about -1..1.
    """
    levels, _, features = columns.shape
    image_channels, channels = weights.image.shape[0], weights.image.shape[1] - 1
    rank, points, device = features // channels, len(y.node), columns.device
    cpu = device.type == "cpu"
    workers = torch.get_num_threads() if cpu else 1
    step = _POINTS if cpu else _DEVICE_POINTS
    products = torch.empty((levels, channels, points), device=device)

    def work(start: int) -> int:
        part = slice(start, start + step)
        index_y, weight_y = _pairs(y, part)
        index_x, weight_x = _pairs(x, part)
        for level in range(levels):
            codes = _interpolate(columns[level], index_y, weight_y)
            codes *= _interpolate(rows[level], index_x, weight_x)
            products[level, :, part] = reduce(codes, "point (rank b) -> b point", "sum", rank=rank)
        return 0

    starts = range(0, points, step)
    run_parallel(work, starts, min(workers, len(starts)), after)
    # An image of one row: its column code is 1, its row codes are the products.
    image = torch.empty((image_channels, 1, points), device=device)
    samples = max(_POINTS, min(_SAMPLES, BUFFER_BYTES // (weights.bytes_per_sample * workers)))
    TiledBackend().paint(
        torch.ones((levels, channels, 1, 1), device=device),
        products.unsqueeze(-1),
        weights,
        image,
        supersample=1,
        tile=(1, samples if cpu else _DEVICE_POINTS),
        after_tile=after,
    )
    return image[:, 0]


def _pairs(at: TablePositions, part: slice) -> tuple[Tensor, Tensor]:
    """Indices and weights of the two nodes beside each point, [p, 2] each."""
    index, fraction = at.node[part], at.fraction[part]
    return torch.stack([index, index + 1], 1), torch.stack([1 - fraction, fraction], 1)


def _interpolate(table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """[T, F] -> [p, F]: weighted sums of two rows each, in one pass."""
    return F.embedding_bag(index, table, per_sample_weights=weight, mode="sum")
