"""The per-pixel stage with its gradient written out, for training on a CPU: half as many passes through memory.

Features are channel-major, [C + 1, P], with a last row of ones, and weights have the bias as a last column: a layer is
one matrix product, whose gradient is one product for the features and one for the weight with the bias. Images are
processed one by one, in bands; layers allocate nothing. First derivative only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .reference import CLAMP, LEAKY_SLOPE
from .stage import Layer, PixelStage

BAND_PIXELS = 4096
"""Pixels of a band, about: its features stay in the cache."""
MIN_PIXELS = 1024
"""Smaller images are faster as one batch, by autograd."""


def is_faster(columns: Tensor, rows: Tensor) -> bool:
    """Whether this beats autograd for lines [N, L, B, height, rank] and [N, L, B, width, rank] on a CPU."""
    pixels = columns.shape[-2] * rows.shape[-2]
    return pixels >= MIN_PIXELS and not torch.is_autocast_enabled("cpu")


@dataclass
class _FoldedLayer:
    """A layer [out, in + 1] with the bias folded in; [N, out, in + 1] where it depends on the latent."""

    weight: Tensor
    row_sums: list[float]  # by latent, the largest sum of absolute weights of an output: |y| <= row_sum * |x| + offset
    offset: float  # the largest absolute bias
    gradient: Tensor | None = None  # of `weight`


class ExplicitBackward:
    """The stage for one pair of lines: `paint` computes its image, `gradients` the gradient of its inputs.

    Args:
        columns: [N, L, B, height, rank], line 0.
        rows: [N, L, B, width, rank], line 1.
        stage: with the gains of the activations folded in; the blocks' weights [N, out, in].
        with_gradient: whether gradients of the stage are wanted.
    """

    def __init__(self, columns: Tensor, rows: Tensor, stage: PixelStage, with_gradient: bool):
        self.columns = (columns * 0.5).contiguous()  # sqrt(1/2) per line
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
        for n, band in self._bands():
            _Band(self, n, band, keep=False).forward(out[n, :, band])
        return out

    def gradients(self, gradient: Tensor) -> tuple[Tensor, Tensor, list[Layer]]:
        """Gradients of columns, of rows, and of the layers (decoders, image, blocks), if they are wanted.

        Args:
            gradient: of the image, [N, image_channels, height, width].
        """
        columns, rows = torch.zeros_like(self.columns), torch.zeros_like(self.rows)
        for n, band in self._bands():
            work = _Band(self, n, band, keep=True)
            work.forward(None)
            work.backward(gradient[n, :, band].flatten(1), columns[n, :, :, band], rows[n])
        layers = [layer for decoder in self.decoders for layer in decoder]
        layers += [self.image, *(layer for block in self.blocks for layer in block)]
        return columns.mul_(0.5), rows, [_unfold(layer.gradient) for layer in layers if layer.gradient is not None]

    def _bands(self) -> Iterator[tuple[int, slice]]:
        """Number of an image, and rows of it."""
        height, width = self.columns.shape[-2], self.rows.shape[-2]
        step = max(1, BAND_PIXELS // width)
        for n in range(len(self.columns)):
            for top in range(0, height, step):
                yield n, slice(top, min(top + step, height))

    def buffer(self, number: int, channels: int, pixels: int) -> Tensor:
        """Memory [channels + 1, pixels] whose last row is ones; the same memory for the same number and size."""
        key = number, (channels + 1) * pixels
        if key not in self._memory:
            self._memory[key] = self.columns.new_empty(channels + 1, pixels)
        found = self._memory[key].view(channels + 1, pixels)
        found[-1] = 1
        return found


def _fold(layer: Layer, with_gradient: bool) -> _FoldedLayer:
    bias = layer.bias.unsqueeze(-1).expand(*layer.weight.shape[:-1], 1)
    weight = torch.cat((layer.weight, bias), -1)
    row_sums = weight[..., :-1].abs().sum(-1).amax(-1).reshape(-1).tolist()
    offset = weight[..., -1].abs().max().item()
    return _FoldedLayer(weight, row_sums, offset, torch.zeros_like(weight) if with_gradient else None)


def _unfold(gradient: Tensor) -> Layer:
    bias = gradient[..., -1]
    return Layer(gradient[..., :-1], bias if bias.ndim == 1 else bias.sum(0))


class _Record(NamedTuple):
    """What the backward pass needs of a layer."""

    layer: _FoldedLayer
    x: Tensor  # input [in + 1, P]
    y: Tensor  # output [out + 1, P]
    passed: Tensor | None = None  # [out, P] bool, where the clamp passed the output on; None: everywhere


class _Band:
    """Some rows of pixels of image n.

    Args:
        whole: the images.
        n: number of the image.
        band: its rows.
        keep: whether to keep each layer's output for `backward`.
    """

    def __init__(self, whole: ExplicitBackward, n: int, band: slice, keep: bool):
        self.whole, self.n, self.keep = whole, n, keep
        self.columns, self.rows = whole.columns[n, :, :, band], whole.rows[n]
        self.height, self.width = self.columns.shape[-2], self.rows.shape[-2]
        self.pixels = self.height * self.width
        self.records: list[_Record] = []
        self._buffers = 0

    def forward(self, out: Tensor | None) -> None:
        """Evaluate the layers; the image goes to `out` [C, rows, width], or is left out."""
        painted = out is not None
        feature = self._decode()
        low, high = torch.aminmax(feature[:-1])
        bound = max(-low.item(), high.item())
        image = self._layer(self.whole.image, feature, activated=False, needed=painted)
        image = image[:-1].clone() if painted else image  # the next layers reuse its buffer
        for *layers, to_image in self.whole.blocks:
            for layer in layers:
                feature, bound = self._clamped(layer, feature, bound)
            residual, _ = self._clamped(to_image, feature, bound, activated=False, needed=painted)
            if painted:
                image.add_(residual[:-1])
        if out is not None:
            out.copy_(image.view(-1, self.height, self.width))

    def backward(self, gradient: Tensor, columns: Tensor, rows: Tensor) -> None:
        """Add to the gradients of the layers, of the columns [L, B, height, rank] and of the rows.

        Args:
            gradient: of the image, [C, P].
        """
        gradient = gradient.contiguous()
        above: Tensor | None = None  # gradient of a feature, from the layers after it
        for _, _, _ in self.whole.blocks:
            above = self._back(gradient, above, activated=False)
            above = self._back(above)
            above = self._back(above)
        above = self._back(gradient, above, activated=False)
        levels = zip(self.whole.decoders, self.columns, self.rows, columns, rows, strict=True)
        for decoder, level_columns, level_rows, column_gradient, row_gradient in reversed(list(levels)):
            for _ in decoder:
                above = self._back(above)
            product = above.view(-1, self.height, self.width)
            column_gradient.baddbmm_(product, level_rows)
            row_gradient.baddbmm_(product.mT, level_columns)

    def _decode(self) -> Tensor:
        """The feature after all decoders, [B + 1, P]."""
        channels = self.columns.shape[1]
        feature: Tensor | None = None
        for decoder, columns, rows in zip(self.whole.decoders, self.columns, self.rows, strict=True):
            # The gradient of a leaky ReLU goes by its output before the product is added: keep that.
            total = self._buffer(channels) if feature is None or self.keep else feature
            self._add_product(columns, rows, feature, total)
            feature = total
            for layer in decoder:
                feature = self._layer(layer, feature)
        assert feature is not None
        return feature

    def _buffer(self, channels: int) -> Tensor:
        """Memory for an output: one of three in turn, as a layer needs its input and a sum, unless outputs are kept."""
        self._buffers += 1
        return self.whole.buffer(self._buffers if self.keep else self._buffers % 3, channels, self.pixels)

    def _add_product(self, columns: Tensor, rows: Tensor, feature: Tensor | None, out: Tensor) -> None:
        """Write the outer product of [B, height, rank] and [B, width, rank], plus `feature` if there is one."""
        target = out[:-1].view(-1, self.height, self.width)
        start = target if feature is None else feature[:-1].view(target.shape)
        torch.baddbmm(start, columns, rows.mT, beta=0 if feature is None else 1, out=target)

    def _weight(self, layer: _FoldedLayer) -> tuple[Tensor, Tensor | None]:
        """The weight for this image, and its gradient."""
        if layer.weight.ndim == 2:
            return layer.weight, layer.gradient
        return layer.weight[self.n], None if layer.gradient is None else layer.gradient[self.n]

    def _layer(self, layer: _FoldedLayer, x: Tensor, activated: bool = True, needed: bool = True) -> Tensor:
        """The output [out + 1, P]. Unless `needed` it is not computed: the gradient of a linear map does not use it."""
        weight, _ = self._weight(layer)
        y = self._buffer(len(weight)) if needed else x
        if needed:
            torch.mm(weight, x, out=y[:-1])
        if activated:
            F.leaky_relu_(y[:-1], LEAKY_SLOPE)
        if self.keep:
            self.records.append(_Record(layer, x, y))
        return y

    def _clamped(
        self, layer: _FoldedLayer, x: Tensor, bound: float, activated: bool = True, needed: bool = True
    ) -> tuple[Tensor, float]:
        """A layer that ends in the clamp, and a bound of its output; values are read only if they may exceed it.

        Args:
            bound: of |x|.
        """
        bound = layer.row_sums[self.n if layer.weight.ndim == 3 else 0] * bound + layer.offset
        y = self._layer(layer, x, activated, needed or not bound <= CLAMP)
        if bound <= CLAMP:
            return y, bound
        low, high = torch.aminmax(y[:-1])
        bound = max(-low.item(), high.item())
        if bound <= CLAMP:
            return y, bound
        if self.keep:
            self.records[-1] = _Record(layer, x, y, (y[:-1] >= -CLAMP) & (y[:-1] <= CLAMP))
        y[:-1].clamp_(-CLAMP, CLAMP)
        return y, CLAMP

    def _back(self, gradient: Tensor, add: Tensor | None = None, activated: bool = True) -> Tensor:
        """Through the last layer recorded: gradient [out, P] -> [in, P], plus `add`.

        `add` is overwritten, and so is the gradient of an activated layer.
        """
        layer, x, y, passed = self.records.pop()
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
