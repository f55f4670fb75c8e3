"""Adaptive discriminator augmentation: a discriminator that sees every picture altered cannot memorise the data.

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
from einops import rearrange, repeat
from torch import Tensor, nn

Number = Tensor | float
"""One per sample [N], or the same for all."""
Parameters = Callable[[Tensor, Tensor], Tensor]
"""A distribution: uniform (0..1) and standard normal numbers [2, N] -> parameters [2, N]."""
Rows = list[list[Number]]
"""A matrix for each sample."""
LinearMap = Callable[[Tensor], Tensor]


class Operation(NamedTuple):
    """A random transform of pictures. Parameters of 0 leave a picture as it is."""

    name: str
    parameters: Parameters
    matrix: Callable[[Tensor, Tensor, int, int], Rows]  # of both parameters, the picture's width and its height
    probability: Callable[[float], float] = float  # as a function of the pipeline's
    repeated: bool = False  # once more under the same name; rests when parameters are fixed


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
    """Scale along the axis of greys, scale across it, turn about it, then add grey. It treats R, G and B alike."""
    cos, sin = (1.0, 0.0) if hue is None else (hue.cos(), hue.sin())
    along, across, turned = luma / 3, chroma * cos / 3, chroma * sin / math.sqrt(3)
    same, before, after = along + 2 * across, along - across - turned, along - across + turned
    return [
        [same, before, after, offset],
        [after, same, before, offset],
        [before, after, same, offset],
        [0.0, 0.0, 0.0, 1.0],
    ]


def _one_of_two(p: float) -> float:
    """Of two chances that together come true with probability p: that of each."""
    return 1 - math.sqrt(1 - p)


# Appendix B, in its order. Geometry is given inversely, from a pixel of the result to where it is taken from: x to
# the right and y down from the centre, in pixels.
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
_CENTRE = 5  # the tap by which a pixel and a sample of the finer grid are at the same place
_REACH = 3  # pixels on either side that a sample of the finer grid is made of, at most


class Augment(nn.Module):
    """Alters pictures at random, each operation with probability `p`, in a way that gradients pass, twice if need be.

    Geometry enlarges pictures twofold, samples them bilinearly and reduces them twofold; both filters are the low-pass
    of an orthogonal wavelet. What lies outside a picture is its reflection, and beyond one reflection 0.

    Random numbers come from torch's default generator of the pictures' device; which ones depends neither on `p`,
    unless it is 0, nor on the choice of operations. Matrices are composed on the CPU: a call waits for the device.
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
        self.operations = tuple(name for name in OPERATIONS if name in operations)
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("_taps", torch.tensor(_SYM6), persistent=False)

    def forward(self, images: Tensor, percentile: float | None = None) -> Tensor:
        """Alter pictures.

        Args:
            images: [N, C, H, W], about -1..1, in any precision; computed in float32, float64 in float64. C is 1 (what
                R, G and B, equal before, are on average), 3, or 4: alpha moves with the rest and keeps its value.
            percentile: of every parameter instead of random ones (0 < percentile < 1), in all pictures and whatever `p`
                is. As published, a normal parameter is then 1 / sqrt(2) of its percentile, and the rotation after
                `aniso` rests.

        Returns:
            As `images`; with nothing to do, `images` itself.

        Raises:
            ValueError: another number of channels; a percentile out of range.
        """
        count, channels, height, width = images.shape
        if channels not in (1, 3, 4):
            raise ValueError(f"pictures must have 1, 3 or 4 channels, not {channels}")
        if percentile is not None and not 0 < percentile < 1:
            raise ValueError(f"percentile must be between 0 and 1, not {percentile}")
        p = min(self.p.item(), 1.0) if percentile is None else 1.0
        if p == 0 or not count:
            return images

        def composed(operations: Iterable[tuple[Operation, Tensor]]) -> Tensor | None:
            chosen = [entry for entry in operations if entry[0].name in self.operations]
            matrices = [_matrix(operation, values, p, width, height) for operation, values in chosen]
            return reduce(torch.matmul, matrices) if matrices else None

        numbers = _random(count, images.device) if percentile is None else _fixed(count, percentile)
        operations = list(zip(GEOMETRY + COLOUR, numbers, strict=True))
        origins = composed(operations[: len(GEOMETRY)])
        colours = composed(reversed(operations[len(GEOMETRY) :]))  # the first is the rightmost factor
        altered = images if images.dtype == torch.float64 else images.float()
        with torch.autocast(images.device.type, enabled=False):
            if origins is not None:
                altered = _moved(altered, origins, self._taps.to(altered))
            if colours is not None:
                altered = _coloured(altered, colours)
        return altered.to(images.dtype)

    def extra_repr(self) -> str:
        return ", ".join(self.operations)


def _random(count: int, device: torch.device) -> Tensor:
    """For each operation [5, N]: whether it takes place, two uniform and two normal numbers."""
    operations = len(GEOMETRY + COLOUR)
    uniform = torch.rand(operations, 3, count, device=device, dtype=torch.float32)
    normal = torch.randn(operations, 2, count, device=device, dtype=torch.float32)
    return torch.cat((uniform, normal), 1).cpu().double()


def _fixed(count: int, percentile: float) -> Tensor:
    """As `_random`, at a percentile."""
    values = torch.tensor([0, percentile, percentile, 0, 0], dtype=torch.float64)
    values[3:] = torch.erfinv(2 * values[1:3] - 1)
    numbers = repeat(values, "number -> operation number n", operation=len(GEOMETRY + COLOUR), n=count).clone()
    numbers[[operation.repeated for operation in GEOMETRY + COLOUR], 0] = 1  # above any probability
    return numbers


def _matrix(operation: Operation, numbers: Tensor, p: float, width: int, height: int) -> Tensor:
    """Numbers [5, N] -> the operation's matrices [N, 3 or 4, 3 or 4], float64 on the CPU."""
    chosen, uniform, normal = numbers.split((1, 2, 2))
    parameters = torch.where(chosen < operation.probability(p), operation.parameters(uniform, normal), 0.0)
    rows = operation.matrix(parameters[0], parameters[1], width, height)
    entries = [torch.as_tensor(entry, dtype=numbers.dtype).expand(numbers.shape[1]) for row in rows for entry in row]
    return rearrange(entries, "(row column) n -> n row column", row=len(rows))


def _moved(images: Tensor, origins: Tensor, taps: Tensor) -> Tensor:
    """Apply geometry, given as matrices [N, 3, 3] from pixels of the result to those of the pictures."""
    sizes = images.shape[3], images.shape[2]
    size = torch.tensor(sizes, dtype=origins.dtype)
    first = (1 - size) / 2  # the first pixel, as seen from the centre
    # The samples that the result is reduced from: 2 a pixel, and the filter's overhang.
    x, y = ((torch.arange(2 * n + len(taps) - 2) - _CENTRE + 1 - n) / 2 for n in sizes)
    ends = torch.cartesian_prod(x[[0, -1]], y[[0, -1]]).T.double()
    corners = origins[:, :2, :2] @ ends + origins[:, :2, 2:]
    outside = torch.stack((first - corners.amin((0, 2)), corners.amax((0, 2)) + first), 1)
    margins = (outside.ceil() + _REACH).clamp(max=size[:, None] - 1).clamp(min=0).int()  # before and after, x and y

    # From pixels of the result to -1..1 between the first and the last sample of the enlarged pictures.
    unit = 4 / (2 * (size + margins.sum(1)) - 1)
    rows = origins[:, :2] * unit[:, None]
    rows[..., 2] += (margins[:, 0] - first) * unit - 1
    rows, x, y = (values.to(images, non_blocking=True) for values in (rows[:, None, None], x, y))
    grid = rows[..., 0] * x[:, None] + rows[..., 1] * y[:, None, None] + rows[..., 2]
    sampling = (0, 0, True)  # bilinear, zeros beyond the edges, which are the centres of the outermost samples

    # Padding and filters along an axis are a matrix. Up to 128 pixels or so that takes a CPU a quarter of the time that
    # convolutions of single channels do; the work grows with the cube of the size.
    wider, taller = (_enlarging(taps, n, *margin) for n, margin in zip(sizes, margins.tolist(), strict=True))
    narrower, lower = (_band(taps, 2 * n + len(taps) - 2, n) for n in sizes)

    def resample(pictures: Tensor) -> Tensor:
        return lower.T @ torch.grid_sampler_2d(taller @ pictures @ wider.T, grid, *sampling) @ narrower

    def adjoint(gradients: Tensor) -> Tensor:
        gradients = lower @ gradients @ narrower.T
        pictures = gradients.new_zeros(()).expand(*gradients.shape[:2], len(taller), len(wider))  # for the shape only
        backward = torch.ops.aten.grid_sampler_2d_backward
        return taller.T @ backward(gradients, pictures, grid, *sampling, (True, False))[0] @ wider

    return _Linear.apply(images, resample, adjoint)


def _band(taps: Tensor, samples: int, pixels: int, start: int = 0) -> Tensor:
    """[samples, pixels]: the taps down each column, two rows lower in the next; those before `start` are cut off."""
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
    """Raises the probability of augmentation while the discriminator tells more real pictures than `target`.

    The measure is the mean sign of what it says of real pictures; it is taken and the probability changed every
    `interval` iterations, by as much as would lead from 0 to 1 in `kimg` thousand pictures. Nothing waits for a device.
    """

    signs: Tensor
    """Their sum and number since the last change."""

    def __init__(self, target: float = 0.6, kimg: float = 500, interval: int = 4):
        """Use the paper's target; `kimg` of 100 is for fine-tuning."""
        super().__init__()
        self.target, self.kimg, self.interval = target, kimg, interval
        self.register_buffer("signs", torch.zeros(2))

    @torch.no_grad()
    def observe(self, logits: Tensor) -> None:
        """Take account of the discriminator's values of real pictures."""
        self.signs[0] += logits.sign().sum(dtype=torch.float32)
        self.signs[1] += logits.numel()

    @torch.no_grad()
    def update(self, p: Tensor, iteration: int, batch: int) -> None:
        """Change `p` in place, after iteration `iteration` (the first is 0) of `batch` pictures, if it is time to."""
        if (iteration + 1) % self.interval:
            return
        total, number = self.signs
        step = (batch * self.interval) / (self.kimg * 1000)
        direction = torch.where(number > 0, (total / number - self.target).sign(), 0.0)
        p.add_(direction.to(p), alpha=step).clamp_(min=0)
        self.signs.zero_()
