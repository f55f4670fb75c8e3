"""The per-pixel stage for training: activation checkpointing by tiles, for first and second derivatives.

Autograd would keep 20 KB of activations per pixel. Here only a tile's inputs are kept, and its activations are
recomputed in the backward pass. On a CPU this is also faster: a tile stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import explicit_backward
from .graphs import may_read_values
from .reference import ACTIVATION_GAIN, CLAMP, LEAKY_SLOPE, outer_product
from .stage import Layer, PixelBlock, PixelStage

TILE_PIXELS = 16384
"""Pixels of a tile, over all images of a batch: 4 MB for a layer of 64 channels."""


class ExplicitFunction(Protocol):
    """A function whose value and first derivative are written out."""

    def value(self, *inputs: Tensor) -> Tensor:
        """The value of the function."""
        ...

    def gradients(self, gradient: Tensor, wanted: Sequence[bool], *inputs: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the inputs from that of the value; None for inputs that are not `wanted`."""
        ...


def recompute(function: Callable[..., Tensor], *inputs: Tensor, explicit: ExplicitFunction | None = None) -> Tensor:
    """`function(*inputs)`, which keeps only the inputs for its first and second derivative.

    Args:
        function: a pure function of these tensors; it is called again in the backward passes.
        inputs: floating-point tensors of any shapes.
        explicit: the same function with its first derivative written out, used for the value and that derivative.
    """
    if not torch.is_grad_enabled():
        return (explicit.value if explicit else function)(*inputs)
    device = inputs[0].device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return _Recomputed.apply(function, explicit, autocast, *inputs)


def entangle_recomputed(columns: Tensor, rows: Tensor, stage: PixelStage, tile_pixels: int = TILE_PIXELS) -> Tensor:
    """Bi-lines -> image, like `reference.entangle`, differentiable twice.

    Args:
        columns: [N, L, B, height, rank], line 0.
        rows: [N, L, B, width, rank], line 1.
        stage: the weights.
        tile_pixels: pixels of a tile, about, over all N images.

    Returns:
        [N, image_channels, height, width].
    """
    tensors, rebuild = _unpack(stage)

    def paint(columns: Tensor, rows: Tensor, *tensors: Tensor) -> Tensor:
        return _paint(columns, rows, rebuild(tensors))

    def in_tiles(columns: Tensor, rows: Tensor, *tensors: Tensor) -> Tensor:
        height = max(1, tile_pixels // (len(rows) * rows.shape[-2]))
        return torch.cat([recompute(paint, tile, rows, *tensors) for tile in columns.split(height, -2)], -2)

    if may_read_values(columns) and explicit_backward.is_faster(columns, rows):
        return recompute(in_tiles, columns, rows, *tensors, explicit=_ExplicitStage(rebuild))
    return in_tiles(columns, rows, *tensors)


class _ExplicitStage:
    """`explicit_backward` as an `ExplicitFunction`."""

    def __init__(self, rebuild: Callable[[Sequence[Tensor]], PixelStage]):
        self.rebuild = rebuild

    def value(self, columns: Tensor, rows: Tensor, *tensors: Tensor) -> Tensor:
        return explicit_backward.ExplicitBackward(columns, rows, self.rebuild(tensors), False).paint()

    def gradients(
        self, gradient: Tensor, wanted: Sequence[bool], columns: Tensor, rows: Tensor, *tensors: Tensor
    ) -> tuple[Tensor | None, ...]:
        work = explicit_backward.ExplicitBackward(columns, rows, self.rebuild(tensors), any(wanted[2:]))
        of_columns, of_rows, layers = work.gradients(gradient)
        weights = [tensor for layer in layers for tensor in layer] or [None] * len(tensors)
        found = (of_columns, of_rows, *weights)
        return tuple(g if needed else None for g, needed in zip(found, wanted, strict=True))


def _paint(columns: Tensor, rows: Tensor, stage: PixelStage) -> Tensor:
    """`reference.entangle` with channels last: the pixels of all images are the rows of one matrix.

    The gains of the activations are folded into the weights, see `_unpack`.
    """
    products = outer_product(columns, rows)
    first, *others = rearrange(products, "n level b h w -> level n (h w) b")
    feature = first
    for decoder, product in zip(stage.decoders, others, strict=False):
        feature = _decode(feature, decoder) + product
    feature = _decode(feature, stage.decoders[-1])
    image = F.linear(feature, *stage.image)
    for block in stage.blocks:
        feature = _modulated(_modulated(feature, block.fc0), block.fc1)
        weight, bias = block.to_image
        image = image + clamp(torch.baddbmm(bias, feature, weight.mT), CLAMP)
    return rearrange(image, "n (h w) c -> n c h w", h=columns.shape[-2])


def clamp(x: Tensor, limit: float) -> Tensor:
    """Clamp `x` to -limit..limit, differentiable twice.

    On a CPU the values are read first, which mostly saves the four passes of the clamp and its gradient; elsewhere
    reading them would wait for the device.
    """
    if may_read_values(x) and x.numel():
        values = x.detach()
        if values.ndim == 4 and not values.is_contiguous():
            values = values.movedim(1, -1)  # as stored, channels last: aminmax would copy it otherwise
        low, high = torch.aminmax(values)
        if -limit <= low and high <= limit:  # False if a value is NaN
            return x
    return _Clamp.apply(x, limit)


class _Clamp(torch.autograd.Function):
    """`clamp`, whose gradient is one operation and one pass through memory in place of five.

    Its second derivative in x is None rather than zeros: an optimiser skips the former only.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.limit = limit
        return x.clamp(-limit, limit)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Clamped.apply(gradients[0], *ctx.saved_tensors, ctx.limit), None


class _Clamped(torch.autograd.Function):
    """The gradient where x is within the limits, 0 elsewhere."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, limit: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.limit = limit
        return torch.ops.aten.hardtanh_backward(gradient, x, -limit, limit)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Clamped.apply(gradients[0], *ctx.saved_tensors, ctx.limit), None, None


def _decode(feature: Tensor, decoder: Sequence[Layer]) -> Tensor:
    """[N, P, B] -> [N, P, B], as one matrix in between: `linear` of three axes returns a view, and changing a view in
    place costs autograd two copies.
    """
    shape = feature.shape
    feature = feature.flatten(0, 1)
    for weight, bias in decoder:
        feature = F.leaky_relu(F.linear(feature, weight, bias), LEAKY_SLOPE, True)
    return feature.view(shape)


def _modulated(feature: Tensor, layer: Layer) -> Tensor:
    return clamp(F.leaky_relu(torch.baddbmm(layer.bias, feature, layer.weight.mT), LEAKY_SLOPE, True), CLAMP)


def _unpack(stage: PixelStage) -> tuple[list[Tensor], Callable[[Sequence[Tensor]], PixelStage]]:
    """The tensors of a stage with the gains of the activations folded in (they commute with the leaky ReLU), and the
    function that makes a stage of such tensors.
    """
    layers = [layer for decoder in stage.decoders for layer in decoder]
    layers += [stage.image, *(layer for block in stage.blocks for layer in block)]
    lengths = [len(decoder) for decoder in stage.decoders]

    def rebuild(tensors: Sequence[Tensor]) -> PixelStage:
        found = iter([Layer(*pair) for pair in zip(tensors[::2], tensors[1::2], strict=True)])
        decoders = tuple(tuple(next(found) for _ in range(length)) for length in lengths)
        return PixelStage(decoders, next(found), tuple(PixelBlock(*block) for block in zip(*[found] * 3, strict=True)))

    activated = [*sum(lengths) * [True], False, *len(stage.blocks) * [True, True, False]]
    gained = iter(
        torch._foreach_mul(  # pyright: ignore[reportPrivateImportUsage]
            [tensor for layer, found in zip(layers, activated, strict=True) if found for tensor in layer],
            ACTIVATION_GAIN,
        )
    )
    # The others stay the same tensors: path lengths have no gradient for some, which to Adam is not a gradient of 0.
    return [
        next(gained) if found else x for layer, found in zip(layers, activated, strict=True) for x in layer
    ], rebuild


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, explicit, autocast, *inputs):
        ctx.function, ctx.explicit, ctx.autocast = function, explicit, autocast
        ctx.save_for_backward(*inputs)
        return (explicit.value if explicit else function)(*inputs)

    @staticmethod
    def backward(ctx, *grads):
        inputs = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        return None, None, None, *_Gradient.apply(ctx.function, ctx.explicit, ctx.autocast, wanted, grads[0], *inputs)


class _Gradient(torch.autograd.Function):
    """(gradient of the output, inputs) -> gradients of the inputs; itself differentiable."""

    @staticmethod
    def forward(ctx, function, explicit, autocast, wanted, grad, *inputs):
        ctx.function, ctx.autocast, ctx.wanted = function, autocast, wanted
        ctx.save_for_backward(grad, *inputs)
        ctx.set_materialize_grads(False)
        if explicit:
            return explicit.gradients(grad, wanted, *inputs)
        with torch.enable_grad():
            inputs = [x.detach().requires_grad_(needed) for x, needed in zip(inputs, wanted, strict=True)]
            return _gradients(_call(function, autocast, inputs), inputs, grad)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_grads):  # pyright: ignore[reportIncompatibleMethodOverride]
        grad, *inputs = ctx.saved_tensors
        with torch.enable_grad():
            grad = grad.detach().requires_grad_()
            inputs = [x.detach().requires_grad_(needed) for x, needed in zip(inputs, ctx.wanted, strict=True)]
            # Path lengths use the gradients of the styles alone: skip those of the parameters.
            used = [(x, gg) for x, gg in zip(inputs, grad_grads, strict=True) if gg is not None]
            output = _call(ctx.function, ctx.autocast, inputs)
            first = _gradients(output, [x for x, _ in used], grad, create_graph=True)
            pairs = [(g, gg) for g, (_, gg) in zip(first, used, strict=True) if g is not None and g.requires_grad]
            if not pairs:
                return (None,) * (5 + len(inputs))
            outputs, weights = zip(*pairs, strict=True)
            second = _gradients(outputs, [grad, *inputs], weights)
        return None, None, None, None, *second


def _call(function: Callable[..., Tensor], autocast: torch.dtype | None, inputs: Sequence[Tensor]) -> Tensor:
    """Call the function under the autocast of the forward pass, which backward passes run outside of."""
    with torch.amp.autocast_mode.autocast(inputs[0].device.type, autocast, enabled=autocast is not None):
        return function(*inputs)


def _gradients(outputs, inputs: Sequence[Tensor], weights, create_graph: bool = False) -> tuple[Tensor | None, ...]:
    """As `torch.autograd.grad`, with None for inputs that need no gradient or have no influence."""
    wanted = [x for x in inputs if x.requires_grad]
    found = iter(torch.autograd.grad(outputs, wanted, weights, create_graph=create_graph, allow_unused=True))
    return tuple(next(found) if x.requires_grad else None for x in inputs)
