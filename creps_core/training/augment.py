"""Adaptive discriminator augmentation: a discriminator that sees only altered images cannot memorise the dataset.

The pipeline "bgc" (pixel blitting, geometry, colour) of Karras et al., "Training Generative Adversarial Networks with
Limited Data" (arXiv 2006.06676), appendix B, and the rule of its section 3.1 that adapts the strength.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn

from ...kernels import may_read_values

Number = Tensor | float
"""One per image [N], or one for all."""
Parameters = Callable[[Tensor, Tensor], Tensor]
"""A distribution: uniform (0..1) and standard normal numbers [2, N] -> parameters [2, N]."""
Rows = list[list[Number]]
"""A matrix per image."""
LinearMap = Callable[[Tensor], Tensor]


class Operation(NamedTuple):
    """A random transform of images. Parameters of 0 do not change an image."""

    name: str
    parameters: Parameters
    matrix: Callable[[Tensor, Tensor, int, int], Rows]  # of both parameters, the image's width and height
    probability: Callable[[Tensor], Tensor] = lambda p: p  # as a function of the pipeline's
    repeated: bool = False  # a second operation of the same name; not applied when parameters are fixed


def _choice(number: int) -> Parameters:
    return lambda uniform, normal: (uniform * number).floor()


def _uniform(limit: float) -> Parameters:
    return lambda uniform, normal: (2 * uniform - 1) * limit


def _normal(deviation: float) -> Parameters:
    return lambda uniform, normal: normal * deviation


def _plane(xx: Number = 1.0, yy: Number = 1.0, x: Number = 0.0, y: Number = 0.0) -> Rows:
    """Scale about the centre, then shift by pixels."""
    return [[xx, 0.0, x], [0.0, yy, y], [0.0, 0.0, 1.0]]


def _turn(angle: Tensor) -> Rows:
    cos, sin = angle.cos(), angle.sin()
    return [[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]]


def _colour(luma: Number = 1.0, chroma: Number = 1.0, hue: Tensor | None = None, offset: Number = 0.0) -> Rows:
    """Scale along the grey axis, scale across it, rotate about it, then add grey. R, G and B are treated alike."""
    cos, sin = (1.0, 0.0) if hue is None else (hue.cos(), hue.sin())
    along, across, turned = luma / 3, chroma * cos / 3, chroma * sin / math.sqrt(3)
    same, before, after = along + 2 * across, along - across - turned, along - across + turned
    return [
        [same, before, after, offset],
        [after, same, before, offset],
        [before, after, same, offset],
        [0.0, 0.0, 0.0, 1.0],
    ]


def _one_of_two(p: Tensor) -> Tensor:
    """The probability of each of two events, at least one of which occurs with probability p."""
    return 1 - (1 - p).sqrt()


# Appendix B, in its order. Geometry is given as the inverse map, from a pixel of the result to its source: x to the
# right and y down from the centre, in pixels.
GEOMETRY = (
    Operation("xflip", _choice(2), lambda i, _, w, h: _plane(xx=1 - 2 * i)),
    Operation("rotate90", _choice(4), lambda i, _, w, h: _turn(i * (math.pi / 2))),
    Operation("xint", _uniform(0.125), lambda x, y, w, h: _plane(x=-(x * w).round(), y=-(y * h).round())),
    Operation("scale", _normal(0.2), lambda s, _, w, h: _plane(xx=(-s).exp2(), yy=(-s).exp2())),
    Operation("rotate", _uniform(math.pi), lambda angle, _, w, h: _turn(angle), _one_of_two),
    Operation("aniso", _normal(0.2), lambda s, _, w, h: _plane(xx=(-s).exp2(), yy=s.exp2())),
    Operation("rotate", _uniform(math.pi), lambda angle, _, w, h: _turn(angle), _one_of_two, repeated=True),
    Operation("xfrac", _normal(0.125), lambda x, y, w, h: _plane(x=-x * w, y=-y * h)),
)
COLOUR = (
    Operation("brightness", _normal(0.2), lambda b, _, w, h: _colour(offset=b)),
    Operation("contrast", _normal(0.5), lambda c, _, w, h: _colour(luma=c.exp2(), chroma=c.exp2())),
    Operation("lumaflip", _choice(2), lambda i, _, w, h: _colour(luma=1 - 2 * i)),
    Operation("hue", _uniform(math.pi), lambda angle, _, w, h: _colour(hue=angle)),
    Operation("saturation", _normal(1.0), lambda s, _, w, h: _colour(chroma=s.exp2())),
)
OPERATIONS = tuple(operation.name for operation in GEOMETRY + COLOUR if not operation.repeated)
"""The names of all operations."""

# Low-pass of the symlet with 6 vanishing moments, of sum 1.
_SYM6 = (
    0.010892350163280, 0.002468306185920, -0.083431607705840, -0.034161560793240, 0.347228986478350, 0.556946391963960,
    0.238952185666050, -0.051362484930900, -0.014891875649220, 0.031625281329940, 0.001249961046390, -0.005515933754690,
)  # fmt: skip
_CENTRE = 5  # the tap at which a pixel and a sample of the finer grid coincide
_REACH = 3  # largest distance in pixels that a sample of the finer grid depends on
_CHUNK = 1 << 28  # values of upsampled images at a time: 1 GB


class Alterations(NamedTuple):
    """The alterations of N images, as float64 matrices; None where there is none."""

    origins: Tensor | None  # [N, 3, 3], from pixels of the result to those of the images, both relative to the centre
    colours: Tensor | None  # [N, 4, 4], of (R, G, B, 1)


class Augment(nn.Module):
    """Alters images at random, each operation with probability `p`; differentiable twice.

    Geometry upsamples images twofold, samples them bilinearly and downsamples them twofold; both filters are the
    low-pass of an orthogonal wavelet. Images continue by reflection, and beyond one reflection by 0.

    `draw` draws random numbers, `alterations` turns them into matrices, `alter` applies these; calling the module does
    all three. The random numbers depend neither on `p`, unless it is 0, nor on the choice of operations.
    Where values must not be read (`may_read_values`), images get the widest margins instead of those that the matrices
    need.
    """

    p: Tensor
    """Probability of each operation: a float32 number, 0 at first."""
    _taps: Tensor

    def __init__(self, operations: Sequence[str] = OPERATIONS):
        """Take the names of the operations to use; they are applied in the paper's order.

        Raises:
            ValueError: an unknown name.
        """
        super().__init__()
        if unknown := sorted(set(operations) - set(OPERATIONS)):
            raise ValueError(f"operations must be among {', '.join(OPERATIONS)}; not {', '.join(unknown)}")
        self.operations: tuple[str, ...] = tuple(name for name in OPERATIONS if name in operations)
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("_taps", torch.tensor(_SYM6), persistent=False)

    def forward(self, images: Tensor, percentile: float | None = None) -> Tensor:
        """Alter images.

        Args:
            images: [N, C, H, W], about -1..1, in any precision; computed in float32, float64 in float64. C is 1
                (altered as the mean of equal R, G and B), 3, or 4: alpha moves with the rest and keeps its value.
            percentile: 0..1, exclusive: of every parameter, instead of random values, in all images and for any `p`.
                As published, a normal parameter is then 1 / sqrt(2) of its percentile, and the rotation after `aniso`
                is not applied.

        Returns:
            As `images`; `images` itself if nothing is altered.

        Raises:
            ValueError: the number of channels or the percentile is out of range.
        """
        count, channels, height, width = images.shape
        if channels not in (1, 3, 4):
            raise ValueError(f"pictures must have 1, 3 or 4 channels, not {channels}")
        if percentile is not None and not 0 < percentile < 1:
            raise ValueError(f"percentile must be between 0 and 1, not {percentile}")
        if not count or (percentile is None and may_read_values(self.p) and self.p == 0):
            return images
        numbers = self.draw(count) if percentile is None else _fixed(count, percentile, images.device)
        p = self.p if percentile is None else torch.ones_like(self.p)
        return self.alter(images, self.alterations(numbers, height, width, p))

    def draw(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Random numbers for `count` images, [operations, 5, count] float32 on the device of `p`."""
        return draw_numbers(count, self.p.device, generator)

    def alterations(self, numbers: Tensor, height: int, width: int, p: Tensor | None = None) -> Alterations:
        """The matrices of numbers [operations, 5, N] of `draw`, for this image size and probability `p` (`self.p`)."""
        p = self.p if p is None else p
        exact = torch.device("cpu") if numbers.device.type == "mps" else numbers.device  # MPS has no float64
        numbers, p = numbers.to(exact, torch.float64), p.to(exact, torch.float64).clamp(max=1.0)
        constants: dict[float, Tensor] = {}

        def composed(operations: Iterable[tuple[Operation, Tensor]]) -> Tensor | None:
            chosen = [entry for entry in operations if entry[0].name in self.operations]
            matrices = [_matrix(operation, values, p, width, height, constants) for operation, values in chosen]
            return reduce(torch.matmul, matrices) if matrices else None

        operations = list(zip(GEOMETRY + COLOUR, numbers, strict=True))
        # The first operation is the rightmost factor of colours, which act on images, and the leftmost of origins.
        return Alterations(composed(operations[: len(GEOMETRY)]), composed(reversed(operations[len(GEOMETRY) :])))

    def alter(self, images: Tensor, alterations: Alterations) -> Tensor:
        """Apply one alteration to each image."""
        altered = images if images.dtype == torch.float64 else images.float()
        with torch.autocast(images.device.type, enabled=False):
            if alterations.origins is not None:
                altered = _moved(altered, alterations.origins, self._taps.to(altered))
            if alterations.colours is not None:
                altered = _coloured(altered, alterations.colours)
        return altered.to(images.dtype)

    def extra_repr(self) -> str:
        return ", ".join(self.operations)


def draw_numbers(count: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """For each operation, [5, N] float32: a uniform number for whether it is applied, two uniform, two normal."""
    operations = len(GEOMETRY + COLOUR)
    uniform = torch.rand(operations, 3, count, device=device, generator=generator)
    normal = torch.randn(operations, 2, count, device=device, generator=generator)
    return torch.cat((uniform, normal), 1)


def _fixed(count: int, percentile: float, device: torch.device) -> Tensor:
    """As `draw_numbers`, at a percentile, in float64."""
    values = torch.tensor([0, percentile, percentile, 0, 0], dtype=torch.float64)
    values[3:] = torch.erfinv(2 * values[1:3] - 1)
    numbers = repeat(values, "number -> operation number n", operation=len(GEOMETRY + COLOUR), n=count).clone()
    numbers[[operation.repeated for operation in GEOMETRY + COLOUR], 0] = 1  # above any probability
    return numbers if device.type == "mps" else numbers.to(device)


def _matrix(
    operation: Operation, numbers: Tensor, p: Tensor, width: int, height: int, constants: dict[float, Tensor]
) -> Tensor:
    """Numbers [5, N] -> the operation's matrices [N, 3 or 4, 3 or 4]. `constants` are kept from call to call."""
    chosen, uniform, normal = numbers.split((1, 2, 2))
    parameters = torch.where(chosen < operation.probability(p), operation.parameters(uniform, normal), 0.0)

    def entry(value: Number) -> Tensor:
        if isinstance(value, Tensor):
            return value
        if value not in constants:  # filled on the device, where a copy from the host would wait
            constants[value] = numbers.new_full((numbers.shape[1],), value)
        return constants[value]

    rows = operation.matrix(parameters[0], parameters[1], width, height)
    return torch.stack([entry(value) for row in rows for value in row], 1).unflatten(1, (len(rows), -1))


def _moved(images: Tensor, origins: Tensor, taps: Tensor) -> Tensor:
    """Apply geometry, given as matrices [N, 3, 3] from pixels of the result to those of the images."""
    sizes = images.shape[3], images.shape[2]
    margins = (
        _margins(origins, sizes, len(taps)) if may_read_values(origins) else [(size - 1, size - 1) for size in sizes]
    )

    # The samples that the result is downsampled from: 2 per pixel, and the filter's overhang.
    x, y = (_samples(size, len(taps), images.device).to(images) for size in sizes)
    # From pixels of the result to -1..1 between the first and the last sample of the upsampled images.
    rows = origins[:, :2].clone()
    for i, (size, margin) in enumerate(zip(sizes, margins, strict=True)):
        unit = 4 / (2 * (size + sum(margin)) - 1)
        rows[:, i] *= unit
        rows[:, i, 2] += (margin[0] + (size - 1) / 2) * unit - 1
    rows = rows.to(images, non_blocking=True)[:, None, None]
    grid = rows[..., 0] * x[:, None] + rows[..., 1] * y[:, None, None] + rows[..., 2]
    sampling = (0, 0, True)  # bilinear, zeros beyond the edges, which are the centres of the outermost samples

    # Padding and filters along an axis are a matrix. Up to 128 pixels or so that takes a CPU a quarter of the time that
    # convolutions of single channels do; the work grows with the cube of the size.
    wider, taller = (_enlarging(taps, n, *margin) for n, margin in zip(sizes, margins, strict=True))
    narrower, lower = (_band(taps, 2 * n + len(taps) - 2, n) for n in sizes)
    chunk = max(1, _CHUNK // (images.shape[1] * len(taller) * len(wider)))

    def resample(images: Tensor, grid: Tensor) -> Tensor:
        return lower.T @ torch.grid_sampler_2d(taller @ images @ wider.T, grid, *sampling) @ narrower

    def adjoint(gradients: Tensor, grid: Tensor) -> Tensor:
        gradients = lower @ gradients @ narrower.T
        images = gradients.new_zeros(()).expand(*gradients.shape[:2], len(taller), len(wider))  # for the shape only
        backward = torch.ops.aten.grid_sampler_2d_backward
        return taller.T @ backward(gradients, images, grid, *sampling, (True, False))[0] @ wider

    def in_chunks(function: Callable[[Tensor, Tensor], Tensor]) -> LinearMap:
        def apply(images: Tensor) -> Tensor:
            if len(images) <= chunk:
                return function(images, grid)
            return torch.cat([function(*pair) for pair in zip(images.split(chunk), grid.split(chunk), strict=True)])

        return apply

    return _Linear.apply(images, in_chunks(resample), in_chunks(adjoint))


def _samples(size: int, taps: int, device: torch.device) -> Tensor:
    """Positions of the samples that a side of `size` pixels is downsampled from, in pixels from the centre."""
    return (torch.arange(2 * size + taps - 2, device=device) - _CENTRE + 1 - size) / 2


def _margins(origins: Tensor, sizes: tuple[int, int], taps: int) -> list[tuple[int, int]]:
    """Pixels before and after the image, along x and y, that the samples reach; at most its reflection."""
    x, y = (_samples(size, taps, origins.device)[[0, -1]].double() for size in sizes)
    ends = torch.cartesian_prod(x, y).T
    corners = origins[:, :2, :2] @ ends + origins[:, :2, 2:]
    low, high = corners.amin((0, 2)).tolist(), corners.amax((0, 2)).tolist()
    found = []
    for i, size in enumerate(sizes):
        first = (1 - size) / 2
        found.append(tuple(_margin(reach, size) for reach in (first - low[i], high[i] + first)))
    return found


def _margin(reach: float, size: int) -> int:
    return max(0, min(math.ceil(reach) + _REACH, size - 1)) if math.isfinite(reach) else size - 1


def _band(taps: Tensor, samples: int, pixels: int, start: int = 0) -> Tensor:
    """[samples, pixels]: the taps down each column, shifted by two rows per column; the first `start` are cut off."""
    index = torch.arange(samples, device=taps.device)[:, None] - 2 * torch.arange(pixels, device=taps.device)
    return F.pad(taps, (1, 1))[(index + start + 1).clamp(0, len(taps) + 1)]


def _enlarging(taps: Tensor, size: int, before: int, after: int) -> Tensor:
    """[2 * padded, size]: reflect pixels beyond both edges, put zeros between all, filter."""
    pad = F.pad(torch.eye(size, device=taps.device, dtype=taps.dtype), (before, after), mode="reflect")
    return 2 * _band(taps, 2 * pad.shape[1], pad.shape[1], _CENTRE) @ pad.T


class _Linear(torch.autograd.Function):
    """A linear map, differentiable any number of times: its derivative is its adjoint, whose derivative is the map.

    torch's `grid_sample` is differentiable only once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: LinearMap, adjoint: LinearMap) -> Tensor:
        ctx.function, ctx.adjoint = function, adjoint
        with torch.autocast(x.device.type, enabled=False):  # in derivatives too
            return function(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Linear.apply(gradients[0], ctx.adjoint, ctx.function), None, None


def _coloured(images: Tensor, matrices: Tensor) -> Tensor:
    """Apply matrices [N, 4, 4] to (R, G, B, 1)."""
    matrices = matrices[:, :3].to(images, non_blocking=True)
    if images.shape[1] == 1:
        mean = matrices.mean(1, keepdim=True)
        matrices = torch.cat((mean[..., :3].sum(-1, keepdim=True), mean[..., 3:]), -1)
    columns = matrices[..., None, None].unbind(2)
    result = columns[-1].expand(-1, -1, *images.shape[2:])
    for column, channel in zip(columns[:-1], images[:, :3].split(1, 1), strict=True):
        result = result + column * channel
    return torch.cat((result, images[:, 3:]), 1) if images.shape[1] > 3 else result


class AdaptiveProbability(nn.Module):
    """Raises the probability of augmentation while the discriminator's mean sign of real images exceeds `target`.

    Every `interval` steps the probability moves up or down by a step that would lead from 0 to 1 in `kimg` thousand
    images. Nothing waits for a device.
    """

    target: float
    kimg: float
    interval: int

    signs: Tensor
    """Sum and count of the signs since the last change."""

    def __init__(self, target: float = 0.6, kimg: float = 500, interval: int = 4):
        """The defaults are the paper's; `kimg` of 100 is for fine-tuning."""
        super().__init__()
        self.target, self.kimg, self.interval = target, kimg, interval
        self.register_buffer("signs", torch.zeros(2))

    @torch.no_grad()
    def observe(self, logits: Tensor) -> None:
        """Add the discriminator's logits of real images."""
        self.signs[0] += logits.sign().sum(dtype=torch.float32)
        self.signs[1] += logits.numel()

    @torch.no_grad()
    def update(self, p: Tensor, iteration: int, batch: int) -> None:
        """Change `p` in place after step `iteration` (counted from 0) of `batch` images, if a change is due."""
        if (iteration + 1) % self.interval:
            return
        total, number = self.signs
        step = (batch * self.interval) / (self.kimg * 1000)
        direction = torch.where(number > 0, (total / number - self.target).sign(), 0.0)
        p.add_(direction.to(p), alpha=step).clamp_(min=0)
        self.signs.zero_()
