"""Measures of the likeness and the detail of images.

Images are [H, W, C] float tensors in 0..1. SSIM is implemented here in ten lines instead of depending on scikit-image
and SciPy (300 MB). It works on a band of the image at a time, and gives the same number; a test compares them if
scikit-image is installed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

_SIGMA, _RADIUS = 1.5, 5  # of the Gaussian window of SSIM: 11 x 11
_BAND, _BLOCK = 256, 64
_PER_OCTAVE = 6
_COARSEST = 4  # periods per image; below it the taper determines the spectrum
_LUMA = (0.2126, 0.7152, 0.0722)


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal images."""
    error = (a.double() - b.double()).square().mean().item()
    return -10 * math.log10(error) if error else math.inf


def ssim(a: Tensor, b: Tensor) -> float:
    """Mean structural similarity (Wang, Bovik, Sheikh, Simoncelli 2004): Gaussian window, mean over the channels.

    Equal to `skimage.metrics.structural_similarity(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=1, channel_axis=-1)`.
    """
    size = 2 * _RADIUS + 1
    if a.shape != b.shape or min(a.shape[:2]) < size:
        raise ValueError(f"SSIM needs two pictures of one size, at least {size} pixels, not {a.shape} and {b.shape}")
    total, count = 0.0, 0
    for top in range(0, a.shape[0] - size + 1, _BAND):
        x, y = (rearrange(p[top : top + _BAND + size - 1], "h w c -> c h w").double() for p in (a, b))
        mx, my = _blurred(x), _blurred(y)
        vx, vy, vxy = _blurred(x * x) - mx * mx, _blurred(y * y) - my * my, _blurred(x * y) - mx * my
        c1, c2 = 0.01**2, 0.03**2
        s = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
        total, count = total + s.sum().item(), count + s.numel()
    return total / count


def _blurred(x: Tensor) -> Tensor:
    """Filter [C, h, w] float64 by the Gaussian window of SSIM, without padding."""
    gauss = torch.exp(-0.5 * (torch.arange(-_RADIUS, _RADIUS + 1, dtype=x.dtype) / _SIGMA).square())
    window = torch.zeros(_BLOCK + 2 * _RADIUS, _BLOCK, dtype=x.dtype)
    # Blocks of columns as matrix products, which are far faster than convolutions with one channel.
    for i in range(_BLOCK):
        window[i : i + 2 * _RADIUS + 1, i] = gauss / gauss.sum()
    window = window.to(x.device)
    for _ in range(2):
        blocks = (x[..., i : i + _BLOCK + 2 * _RADIUS] for i in range(0, x.shape[-1] - 2 * _RADIUS, _BLOCK))
        x = torch.cat([b @ window[: b.shape[-1], : b.shape[-1] - 2 * _RADIUS] for b in blocks], -1).mT
    return x


class Spectrum(NamedTuple):
    """Spectrum of an image, and its correlation with a reference, by rings of spatial frequency."""

    frequency: Tensor  # [n] cycles per pixel, up to 0.5
    power: Tensor  # [n] mean squared magnitude
    agreement: Tensor  # [n] correlation with the reference, -1..1


def spectrum(image: Tensor, reference: Tensor) -> Spectrum:
    """Radial power spectrum of an image's luminance, and its Fourier ring correlation with a reference of equal size.

    The power measures how much detail of a size there is; the ring correlation, by which microscopy measures
    resolution, whether it is the right detail. A Hann window suppresses the borders.

    Raises:
        ValueError: the images differ in size or are too small.
    """
    height, width = image.shape[:2]
    if image.shape != reference.shape or min(height, width) < 4 * _COARSEST:
        raise ValueError(
            f"a spectrum needs two pictures of one size, at least {4 * _COARSEST} pixels, not {image.shape[:2]} and "
            f"{reference.shape[:2]}"
        )
    device = image.device
    fy = torch.fft.fftfreq(height, device=device)[:, None]
    fx = torch.fft.rfftfreq(width, device=device)[None]
    lowest = _COARSEST / min(height, width)
    ring = ((torch.hypot(fy, fx) / lowest).log2() * _PER_OCTAVE).floor()
    rings = int(math.log2(0.5 / lowest) * _PER_OCTAVE + 1e-6)
    ring = torch.where((ring >= 0) & (ring < rings), ring, rings).long().flatten()
    # A coefficient of rfft stands for two frequencies unless it is its own mirror image.
    weight = torch.where((fx == 0) | (fx == 0.5), 1.0, 2.0).expand(height, -1).double().flatten()

    def sums(values: Tensor) -> Tensor:
        return torch.bincount(ring, values.double().flatten() * weight, rings + 1)[:rings]

    a, b = _waves(image), _waves(reference)
    count = torch.bincount(ring, weight, rings + 1)[:rings]
    power, other, cross = sums(a.abs().square()), sums(b.abs().square()), sums((a * b.conj()).real)
    frequency = lowest * torch.exp2((torch.arange(rings, device=device) + 0.5) / _PER_OCTAVE)
    found = count > 0
    agreement = cross / (power * other).sqrt().clamp(min=1e-30)
    return Spectrum(frequency[found].cpu(), (power / count.clamp(min=1))[found].cpu(), agreement[found].cpu())


def _waves(image: Tensor) -> Tensor:
    height, width, channels = image.shape
    luma = image.new_tensor(_LUMA) if channels == 3 else image.new_full((channels,), 1 / channels)
    light = image.float() @ luma.float()
    light = light - light.mean()
    taper = (torch.hann_window(n, periodic=False, device=image.device) for n in (height, width))
    return torch.fft.rfft2(light * torch.outer(*taper))


def finest_detail(own: Spectrum, threshold: float = 0.5) -> float:
    """Period in pixels of the finest detail whose correlation is at least `threshold`; 2 is the smallest possible."""
    below = (own.agreement < threshold).nonzero()
    if len(below) == 0:
        return 2.0
    i = int(below[0])
    if i == 0:
        return 1 / own.frequency[0].item()
    # Interpolate between two rings on the logarithmic scale of the plot.
    high, low = own.agreement[i - 1].item(), own.agreement[i].item()
    part = (high - threshold) / max(high - low, 1e-12)
    f0, f1 = own.frequency[i - 1].item(), own.frequency[i].item()
    return 1 / (f0 * (f1 / f0) ** part)
