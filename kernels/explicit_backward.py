"""The per-pixel stage with its gradient written out, for training on a CPU: half the passes through memory.

Features lie channel by channel, [C + 1, P], with a last row of ones, and weights have the bias as a last column: a
layer is one product, whose gradient is one product each for the features and for the weights with the bias. Images
are worked on one by one, in tiles; nothing is allocated for their layers in between. First derivative only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .reference import CLAMP, LEAKY_SLOPE
from .stage import Layer, PixelStage

TILE_PIXELS = 4096
LEAST_PIXELS = 1024
"""Smaller pictures are better worked on many at a time."""


def is_faster(columns: Tensor, rows: Tensor) -> bool:
    """Whether this is the faster way for lines on a CPU: pictures must not be small."""
    pixels = columns.shape[-2] * rows.shape[-2]
    return pixels >= LEAST_PIXELS and not torch.is_autocast_enabled("cpu")


@dataclass
class _Folded:
    """A layer, [out, in + 1] with the bias inside; [N, out, in + 1] where it depends on the latent."""

    weight: Tensor
    reach: list[float]  # the largest output per largest input, and of the bias, by latent
    offset: float
    gradient: Tensor | None = None


def _fold(layer: Layer, with_gradient: bool) -> _Folded:
    bias = layer.bias.unsqueeze(-1).expand(*layer.weight.shape[:-1], 1)
    weight = torch.cat((layer.weight, bias), -1)
    reach = weight[..., :-1].abs().sum(-1).amax(-1).reshape(-1).tolist()
    offset = weight[..., -1].abs().max().item()
    return _Folded(weight, reach, offset, torch.zeros_like(weight) if with_gradient else None)


class ExplicitBackward:
    """The stage for lines of some shape: `paint` is its value, `gradients` what a gradient of the picture becomes.

    The weights have the gains of the activations inside.
    """

    def __init__(self, columns: Tensor, rows: Tensor, stage: PixelStage, with_gradient: bool):
        self.columns = (columns * 0.5).contiguous()  # sqrt(1/2) for each line
        self.rows = rows.contiguous()
        self.decoders = [[_fold(layer, with_gradient) for layer in d] for d in stage.decoders]
        self.image = _fold(stage.image, with_gradient)
        self.blocks = [[_fold(layer, with_gradient) for layer in block] for block in stage.blocks]
        self._memory: dict[tuple[int, int], Tensor] = {}

    def paint(self) -> Tensor:
        """[N, image_channels, height, width]."""
        out = self.columns.new_empty(
            len(self.columns), self.image.weight.shape[0], self.columns.shape[-2], self.rows.shape[-2]
        )
        for n, tile in self._tiles():
            _Tile(self, n, tile, keep=False).forward(out[n, :, tile].flatten(1), out[n, :, tile])
        return out

    def gradients(self, gradient: Tensor) -> tuple[Tensor, Tensor, list[Layer]]:
        """Of columns, of rows, and, if asked for, of the layers: decoders, image, blocks."""
        columns, rows = torch.zeros_like(self.columns), torch.zeros_like(self.rows)
        for n, tile in self._tiles():
            work = _Tile(self, n, tile, keep=True)
            work.forward(None, None)
            work.backward(gradient[n, :, tile].flatten(1), columns[n, :, :, tile], rows[n])
        layers = [layer for decoder in self.decoders for layer in decoder]
        layers += [self.image, *(layer for block in self.blocks for layer in block)]
        return columns.mul_(0.5), rows, [_unfold(layer) for layer in layers if layer.gradient is not None]

    def _tiles(self) -> Iterator[tuple[int, slice]]:
        height, width = self.columns.shape[-2], self.rows.shape[-2]
        step = max(1, TILE_PIXELS // width)
        for n in range(len(self.columns)):
            for top in range(0, height, step):
                yield n, slice(top, min(top + step, height))

    def buffer(self, number: int, channels: int, pixels: int) -> Tensor:
        """Memory [channels + 1, pixels] whose last row is ones; the same for the same number and size."""
        key = number, (channels + 1) * pixels
        if key not in self._memory:
            memory = self.columns.new_empty(channels + 1, pixels)
            memory[-1] = 1
            self._memory[key] = memory
        found = self._memory[key].view(channels + 1, pixels)
        found[-1] = 1
        return found


_Step = tuple[_Folded, Tensor, Tensor, Tensor | None]
"""A layer, its input, its output, and what a clamp let pass."""


def _unfold(layer: _Folded) -> Layer:
    assert layer.gradient is not None
    bias = layer.gradient[..., -1]
    return Layer(layer.gradient[..., :-1], bias if bias.ndim == 1 else bias.sum(0))


class _Tile:
    """Some rows of pixels of a picture; `keep`: every layer's output, for `backward`."""

    def __init__(self, whole: ExplicitBackward, n: int, tile: slice, keep: bool):
        self.whole, self.n, self.keep = whole, n, keep
        self.columns, self.rows = whole.columns[n, :, :, tile], whole.rows[n]
        self.height, self.width = self.columns.shape[-2], self.rows.shape[-2]
        self.pixels = self.height * self.width
        self._taken = 0
        self.kept: list[
            tuple[_Folded, Tensor, Tensor, Tensor | None]
        ] = []  # layer, input, output, what a clamp let pass

    def forward(self, out: Tensor | None, target: Tensor | None) -> None:
        whole = self.whole
        feature = self._buffer(self.columns.shape[1])
        self._product(0, feature, feature, 0)
        for level, decoder in enumerate(whole.decoders, start=1):
            for layer in decoder:
                feature = self._layer(layer, feature)
            if level < len(self.columns):
                # The leaky ReLU's gradient goes by what it gave, before the product is added.
                total = self._buffer(self.columns.shape[1]) if self.keep else feature
                self._product(level, feature, total, 1)
                feature = total
        low, high = torch.aminmax(feature[:-1])
        bound = max(-low.item(), high.item())
        image = self._layer(whole.image, feature, activated=False, needed=target is not None)
        image = image[:-1].clone() if target is not None else image  # others are written where it lies
        for block in whole.blocks:
            for layer in block[:2]:
                feature, bound = self._bounded(layer, feature, bound)
            rest, _ = self._bounded(block[2], feature, bound, activated=False, needed=target is not None)
            if target is not None:
                image.add_(rest[:-1])
        if target is not None:
            target.copy_(image.view(-1, self.height, self.width))

    def backward(self, gradient: Tensor, columns: Tensor, rows: Tensor) -> None:
        """Adds to the gradients of the layers, of the columns [L, B, height, rank] and of the rows."""
        whole, kept = self.whole, self.kept
        gradient = gradient.contiguous()
        above: Tensor | None = None  # the gradient of a block's feature, from the block that follows
        for _ in whole.blocks:
            above = self._back(kept.pop(), gradient, above, activated=False)
            above = self._back(kept.pop(), above)
            above = self._back(kept.pop(), above)
        above = self._back(kept.pop(), gradient, above, activated=False)
        for level in range(len(whole.decoders), 0, -1):
            for _ in whole.decoders[level - 1]:
                assert above is not None
                above = self._back(kept.pop(), above)
            assert above is not None
            product = above.view(-1, self.height, self.width)
            columns[level - 1].baddbmm_(product, self.rows[level - 1])
            rows[level - 1].baddbmm_(product.mT, self.columns[level - 1])

    def _buffer(self, channels: int) -> Tensor:
        self._taken += 1
        return self.whole.buffer(self._taken if self.keep else self._taken % 3, channels, self.pixels)

    def _product(self, level: int, feature: Tensor, out: Tensor, beta: int) -> None:
        shape = (-1, self.height, self.width)
        target = out[:-1].view(shape)
        torch.baddbmm(feature[:-1].view(shape), self.columns[level], self.rows[level].mT, beta=beta, out=target)

    def _weight(self, layer: _Folded) -> tuple[Tensor, Tensor | None]:
        if layer.weight.ndim == 2:
            return layer.weight, layer.gradient
        return layer.weight[self.n], None if layer.gradient is None else layer.gradient[self.n]

    def _layer(self, layer: _Folded, x: Tensor, activated: bool = True, needed: bool = True) -> Tensor:
        """The output [out + 1, P]; not computed unless `needed`, for the gradient of a linear map does without it."""
        weight, _ = self._weight(layer)
        y = self._buffer(len(weight)) if needed else x
        if needed:
            torch.mm(weight, x, out=y[:-1])
        if activated:
            F.leaky_relu_(y[:-1], LEAKY_SLOPE)
        if self.keep:
            self.kept.append((layer, x, y, None))
        return y

    def _bounded(
        self, layer: _Folded, x: Tensor, bound: float, activated: bool = True, needed: bool = True
    ) -> tuple[Tensor, float]:
        """A layer that ends in the clamp, and a bound of what it gives; values are looked at if they may be beyond."""
        bound = layer.reach[self.n if layer.weight.ndim == 3 else 0] * bound + layer.offset
        y = self._layer(layer, x, activated, needed or not bound <= CLAMP)
        if bound <= CLAMP:
            return y, bound
        low, high = torch.aminmax(y[:-1])
        bound = max(-low.item(), high.item())
        if bound <= CLAMP:
            return y, bound
        if self.keep:
            self.kept[-1] = (layer, x, y, (y[:-1] >= -CLAMP) & (y[:-1] <= CLAMP))
        y[:-1].clamp_(-CLAMP, CLAMP)
        return y, CLAMP

    def _back(
        self,
        step: _Step,
        gradient: Tensor,
        add: Tensor | None = None,
        activated: bool = True,
    ) -> Tensor:
        """Through one layer: [out, P] -> [in, P], `add` added; an activated layer uses the gradient up."""
        layer, x, y, passed = step
        weight, total = self._weight(layer)
        if passed is not None:
            gradient = gradient * passed
        if activated:
            torch.ops.aten.leaky_relu_backward.grad_input(gradient, y[:-1], LEAKY_SLOPE, True, grad_input=gradient)
        if total is not None:
            total.addmm_(gradient, x.T)
        if add is not None:
            return add.addmm_(weight[:, :-1].T, gradient)
        return weight[:, :-1].T @ gradient
