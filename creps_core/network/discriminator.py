"""The residual discriminator of StyleGAN2, with the parameter names of the official checkpoints.

Sources: "Analyzing and Improving the Image Quality of StyleGAN" (arXiv 1912.04958), section 4.1 and appendix B; labels
and windows enter by projection, as in "cGANs with Projection Discriminator" (arXiv 1802.05637).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ...kernels import ACTIVATION_GAIN, CLAMP, LEAKY_SLOPE, clamp, leaky_relu
from .layers import FullyConnected, initial_normal
from .mapping import MappingStack

_LAST_LEVEL = 4
BRANCH_GAIN = math.sqrt(0.5)  # two branches of equal variance are added
_MAPPING_LAYERS = 8
_FIR = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
WINDOW_CODE = 4
"""Length of the code of a window: log2 of the image's width over the window's, the same for the heights, and the
window's centre, -1..1 across and down the image. All are 0 for the whole image."""
FOLDED_SMOOTHING = {"cuda"}
"""Devices on which smoothing is folded into the kernel of the next convolution: 3 x 3 becomes 6 x 6. Elsewhere two
convolutions are faster: at 64 pixels a CPU takes 1.6 times as long for the larger kernels."""
_FILE_NAMES = {"window_conditioning": "places"}  # of fields whose name in files differs


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Shape of a discriminator. The defaults are the published widths."""

    img_resolution: int  # power of two, >= 8
    img_channels: int = 3
    c_dim: int = 0
    channel_base: int = 32768
    channel_max: int = 512
    mbstd_group_size: int = 4
    window_conditioning: int = 0  # 1: its input includes which window of the image it sees, see `WINDOW_CODE`

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            lowest = 0 if field.name in ("c_dim", "window_conditioning") else 1
            most = 1 if field.name == "window_conditioning" else 1 << 16
            if type(value) is not int or not lowest <= value <= most:
                name = _FILE_NAMES.get(field.name, field.name)
                raise ValueError(f"{name} must be a whole number from {lowest} to {most}, not {value!r}")
        if self.img_resolution < 2 * _LAST_LEVEL or self.img_resolution & (self.img_resolution - 1):
            raise ValueError(f"img_resolution must be a power of two and at least 8, not {self.img_resolution}")
        if self.channel_base < self.img_resolution:
            raise ValueError(f"channel_base must be at least img_resolution, not {self.channel_base}")

    def channels(self, level: int) -> int:
        """Width of the features at a level."""
        return min(self.channel_base // level, self.channel_max)

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels with a residual block: `img_resolution`, ..., 16, 8."""
        return tuple(1 << i for i in range(self.img_resolution.bit_length() - 1, 2, -1))

    def to_dict(self) -> dict[str, int]:
        """The fields as a plain dictionary, as stored in a snapshot."""
        return {_FILE_NAMES.get(name, name): value for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DiscriminatorConfig:
        """Inverse of `to_dict`; ValueError when a field is missing, unknown or out of range."""
        known = {_FILE_NAMES.get(field.name, field.name): field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"unknown fields {unknown}; this version knows {sorted(known)}")
        if "img_resolution" not in values:
            raise ValueError("the field img_resolution is missing")
        return cls(**{known[name]: value for name, value in values.items()})


class Convolution(nn.Module):
    """A convolution with equalised learning rate; `down` smooths with the FIR [1, 3, 3, 1] and halves the size."""

    _fir: Tensor
    _fold: Tensor

    def __init__(self, in_channels: int, out_channels: int, size: int, *, down: bool = False, activate: bool = True):
        super().__init__()
        self.weight: nn.Parameter = nn.Parameter(initial_normal(out_channels, in_channels, size, size))
        self.bias: nn.Parameter | None = nn.Parameter(torch.zeros(out_channels)) if activate else None
        self.weight_gain: float = 1 / math.sqrt(in_channels * size * size)
        self.down = down
        if down:
            self.register_buffer("_fir", torch.outer(_FIR, _FIR).view(1, 1, 4, 4), persistent=False)
            self.register_buffer("_fold", _folding(size), persistent=False)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """[N, in, H, W] -> [N, out, H, W], or half of H and W with `down`; `gain` scales the output and its clamp."""
        size = self.weight.shape[-1]
        padding = size // 2
        # Positive gains commute with the leaky ReLU: on the small weights they cost nothing.
        scale = gain if self.bias is None else gain * ACTIVATION_GAIN
        weight = self.weight * (self.weight_gain * scale)
        bias = None if self.bias is None else self.bias * scale
        if not self.down:
            y = F.conv2d(x, weight, bias, padding=padding)
        elif x.device.type in FOLDED_SMOOTHING:
            weight = (weight.flatten(2) @ self._fold).unflatten(2, (size + 3, size + 3))
            y = F.conv2d(x, weight, bias, stride=2, padding=padding + 1)
        elif size == 1:
            y = F.conv2d(_Smooth.apply(x, self._fir, 1, 2), weight, bias)
        else:
            y = F.conv2d(_Smooth.apply(x, self._fir, padding + 1, 1), weight, bias, stride=2)
        if self.bias is not None:
            y = F.leaky_relu(y, LEAKY_SLOPE, True)  # in place: autograd keeps one tensor instead of two
        return clamp(y, CLAMP * gain)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]} -> {self.weight.shape[0]}, {self.weight.shape[-1]}x{self.weight.shape[-1]}"


class Block(nn.Module):
    """A residual block: features at a level -> at half the size."""

    fromrgb: Convolution

    def __init__(self, config: DiscriminatorConfig, level: int):
        super().__init__()
        width, out = config.channels(level), config.channels(level // 2)
        if level == config.img_resolution:
            self.fromrgb = Convolution(config.img_channels, width, 1)
        self.conv0: Convolution = Convolution(width, width, 3)
        self.conv1: Convolution = Convolution(width, out, 3, down=True)
        self.skip: Convolution = Convolution(width, out, 1, down=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """The image (first block) or features [N, C, H, W] -> features [N, C', H/2, W/2]."""
        if hasattr(self, "fromrgb"):
            x = self.fromrgb(x)
        return self.skip(x, BRANCH_GAIN) + self.conv1(self.conv0(x), BRANCH_GAIN)


class Epilogue(nn.Module):
    """Features of the last level -> one logit, or with labels a vector to project on theirs."""

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        width = config.channels(_LAST_LEVEL)
        self.group_size: int = config.mbstd_group_size
        self.conv: Convolution = Convolution(width + 1, width, 3)
        self.fc: FullyConnected = FullyConnected(width * _LAST_LEVEL**2, width)
        self.out: FullyConnected = FullyConnected(width, width if config.c_dim else 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, 4, 4] -> [N, 1] or [N, C], and the features [N, C] before the last layer."""
        x = self.conv(torch.cat([x, minibatch_std(x, self.group_size)], 1))
        x = leaky_relu(self.fc(x.flatten(1)))
        return self.out(x), x


class Discriminator(nn.Module):
    """Images, and labels -> logits, large for real images."""

    b4: Epilogue

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config
        for level in config.levels:
            setattr(self, f"b{level}", Block(config, level))
        self.b4 = Epilogue(config)
        if config.c_dim:
            self.mapping: MappingStack = MappingStack(0, config.c_dim, config.channels(_LAST_LEVEL), _MAPPING_LAYERS)
        if config.window_conditioning:  # 0 at first: a trained discriminator starts with the logits it had
            self.place: FullyConnected = FullyConnected(WINDOW_CODE, config.channels(_LAST_LEVEL))
            nn.init.zeros_(self.place.weight)

    def forward(self, images: Tensor, c: Tensor | None = None, window: Tensor | None = None) -> Tensor:
        """Images -> logits [N, 1], float32 or better.

        The logits of a batch depend on each other: the spread within groups of `mbstd_group_size` is a feature.

        Args:
            images: [N, img_channels, R, R], about -1..1.
            c: labels [N, c_dim], for a config with `c_dim`.
            window: codes [N, WINDOW_CODE], for a config with `window_conditioning`; None: the whole image.
        """
        x = images
        for level in self.config.levels:
            x = getattr(self, f"b{level}")(x)
        x, features = self.b4(x)
        if self.config.c_dim:
            label = self.mapping.stack(None, c, self.b4.out.weight.dtype)
            x = (x * label).sum(1, keepdim=True) / math.sqrt(x.shape[1])
        if self.config.window_conditioning:
            window = features.new_zeros(len(features), WINDOW_CODE) if window is None else window
            x = x + (features * self.place(window)).sum(1, keepdim=True) / math.sqrt(features.shape[1])
        return x if x.dtype == torch.float64 else x.float()

    def layers(self) -> Iterator[nn.Module]:
        """The convolutions from the image on, in the order in which Freeze-D (arXiv 2002.10964) counts them."""
        for level in self.config.levels:
            block = getattr(self, f"b{level}")
            yield from (module for module in block.children() if isinstance(module, Convolution))


def minibatch_std(x: Tensor, group_size: int) -> Tensor:
    """The spread of features within groups of the batch, as one channel (arXiv 1710.10196, section 3).

    Image i belongs to group i mod (N / g), where g is the largest divisor of N up to `group_size`.

    Args:
        x: [N, C, H, W].

    Returns:
        [N, 1, H, W], constant over each image.
    """
    count = len(x)
    size = max(g for g in range(1, min(group_size, count) + 1) if count % g == 0)
    groups = rearrange(x, "(g rest) c h w -> g rest c h w", g=size)
    std = (groups.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    return repeat(std, "rest -> (g rest) 1 h w", g=size, h=x.shape[2], w=x.shape[3])


def _folding(size: int) -> Tensor:
    """[size^2, (size + 3)^2]: a kernel times this is the kernel with the smoothing folded in."""
    shifted = torch.stack([F.pad(_FIR, (i, size - 1 - i)) for i in range(size)])
    return torch.einsum("ax,by->abxy", shifted, shifted).reshape(size**2, -1)


class _Smooth(torch.autograd.Function):
    """The FIR filter along both axes of zero-padded x [N, C, H, W], differentiable any number of times.

    Its derivative is its adjoint, whose derivative is the filter. Torch's own second derivative of a depthwise
    convolution processes the channels one by one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, fir: Tensor, padding: int, stride: int) -> Tensor:
        ctx.save_for_backward(fir)
        ctx.padding, ctx.stride = padding, stride
        channels = x.shape[1]
        return F.conv2d(x, fir.to(x).expand(channels, 1, 4, 4), stride=stride, padding=padding, groups=channels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _Smoothed.apply(gradients[0], *ctx.saved_tensors, ctx.padding, ctx.stride), None, None, None


class _Smoothed(torch.autograd.Function):
    """The adjoint of `_Smooth`; the sides of its x are even."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fir: Tensor, padding: int, stride: int) -> Tensor:
        ctx.save_for_backward(fir)
        ctx.padding, ctx.stride = padding, stride
        channels = x.shape[1]
        kernel = fir.to(x).expand(channels, 1, 4, 4)
        if stride == 1:  # the filter is symmetric
            return F.conv2d(x, kernel, padding=3 - padding, groups=channels)
        return F.conv_transpose2d(x, kernel, stride=stride, padding=padding, groups=channels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return _Smooth.apply(gradients[0], *ctx.saved_tensors, ctx.padding, ctx.stride), None, None, None
