"""Projection: find the latent whose image is most like a given image, by gradient descent through the generator.

The images of many seeds are candidates. The best few are optimised at a small size, the best of those at larger sizes.
Every comparison covers several scales, of values and of gradients, at the same points of the frame: any size is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checkpoints import build_generator, fingerprint
from ..network import Generator, GeneratorConfig
from ..rendering import WHOLE_FRAME, Window, fit_window, render, sample_positions
from .directions import sample_w
from .sampling import MAX_SEED, Latents, sample

PROJECTION_SPACES = ("w", "ws")
_FIRST_SIDE = 32
_SCALES = 4
_RATE = 0.05  # of Adam, in standard deviations of w
_PRIOR = 1e-4  # weight of the squared distance from the average, which decides what the image does not
_GOOD_ENOUGH = 2e-5  # mean squared error of truncation to 8 bits
_NEAR = 25.0  # PSNR in dB above which a start is refined at the last size only
_BYTES_PER_PIXEL = 2900  # per channel of the pixel features, for one start, including what backward needs

ImageLoss = Callable[[Tensor, Tensor], Tensor]
"""(images, targets), [K, C, h, w] in -1..1 each -> [K]."""
ProjectionProgress = Callable[[int, int, Tensor], None]
"""Called as `progress(done, total, image)` with the current image [C, h, w] in -1..1."""


@dataclass(frozen=True)
class Projection:
    """Result of `project`, one entry per image."""

    latents: Latents
    psnr: list[float]
    """In dB, of images in 0..1, at the size of the last comparison."""


def project(
    generator: Generator,
    images: Tensor,
    *,
    fit: str = "crop",
    space: str = "w",
    steps: int = 300,
    side: int = 128,
    candidates: int = 1024,
    starts: int = 4,
    seed: int = 0,
    start: Tensor | None = None,
    perceptual: ImageLoss | None = None,
    progress: ProjectionProgress | None = None,
) -> Projection:
    """Project images: find latents whose images are most like them.

    Args:
        generator: on any device, with or without inference tensors; the search uses a copy.
        images: [N, C, H, W] in -1..1, C of 1, 3 or 4; transparent pixels are ignored.
        fit: how the images lie in the frame, as in `render`: the result, rendered at their size with this `fit`, shows
            the whole image.
        space: `w`, one style for all layers, stays within the generator's distribution; `ws`, a style per layer,
            optimised separately at the last size, comes closer to other images.
        steps: of Adam, per image.
        side: longer side of the last and largest comparison, in pixels; smaller images are compared at their own size.
        candidates: how many seeds, from `seed` on, to start from. The image of one of these seeds is recognised.
        starts: how many of the best candidates are optimised.
        seed: the first candidate.
        start: [num_ws, w_dim], start here instead; with `w` at the mean of its styles.
        perceptual: a loss to add.
        progress: an exception from it ends the work within one step.

    Returns:
        The latents on the CPU, and their PSNR.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(images, space, steps=steps, side=side, candidates=candidates, starts=starts)
    with torch.inference_mode(False), torch.enable_grad():
        tensors = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
        copy = build_generator(generator.config, tensors).with_training_metadata_of(generator)
        start = None if start is None else start.clone()
        search = _Search(copy, _Options(space, steps, side, candidates, starts, seed, start, perceptual))
        found = []
        for i, image in enumerate(images.detach().float().split(1)):

            def report(done: int, likeness: Tensor, i: int = i) -> None:
                if progress is not None:
                    progress(i * steps + done, len(images) * steps, likeness)

            found.append(search.run(image.clone(), fit, report))
    ws = torch.stack([ws for ws, _ in found]).cpu()
    latents = Latents(ws, fingerprint=fingerprint(generator), name=generator.name)
    return Projection(latents, [psnr for _, psnr in found])


def projection_estimate(config: GeneratorConfig, side: int) -> int:
    """Bytes that `project` takes on the generator's device, beyond its weights."""
    return _BYTES_PER_PIXEL * config.biline_channels * side**2


class _Options(NamedTuple):
    """Arguments of `project`."""

    space: str
    steps: int
    side: int
    candidates: int
    starts: int
    seed: int
    start: Tensor | None
    perceptual: ImageLoss | None


class _Search:
    """Searches from coarse to fine, from many starts to one."""

    def __init__(self, generator: Generator, options: _Options):
        self.generator, self.options = generator, options
        self.device = generator.mapping.w_avg.device
        w = sample_w(generator, 2048)
        self.mean, self.std = w.mean(0).to(self.device), w.std(0).clamp_min(1e-4).to(self.device)

    def run(self, image: Tensor, fit: str, report: Callable[[int, Tensor], None]) -> tuple[Tensor, float]:
        """[1, C, H, W] -> ws [num_ws, w_dim] and the PSNR."""
        height, width = image.shape[2:]
        window = fit_window(WHOLE_FRAME, height, width, fit, self.generator.aspect)
        target = _Target.of(image.to(self.device), self.generator.config.img_channels)
        sizes = _sizes(height, width, self.options.side)
        u = self._candidates(target.resampled(*sizes[0]), window, report)
        u, near = self._nearest(u, target.resampled(*sizes[-1]), window)
        if near > _NEAR:  # the blur of the small sizes would only lead away
            sizes = sizes[-1:]
        counts = _steps_per_size(self.options.steps, len(sizes))
        done = 0
        image, psnr = target.image, 0.0
        for stage, (size, steps) in enumerate(zip(sizes, counts, strict=True)):
            last = stage == len(sizes) - 1
            if last and self.options.space == "ws":
                u = u.expand(-1, self.generator.config.num_ws, -1)
            wanted = target.resampled(*size)
            y, x = (sample_positions(window[k], window[k + 2], size[k]) for k in (0, 1))
            begun = done

            def tell(step: int, likeness: Tensor, begun: int = begun) -> None:
                report(begun + step, likeness)

            u, image = self._descend(u, wanted, y, x, steps, 1 if last else -(-len(u) // 2), tell)
            done += steps
            psnr = wanted.psnr(image)
        report(done, image)
        return (self.mean + self.std * u[0]).expand(self.generator.config.num_ws, -1), psnr

    def _candidates(self, target: _Target, window: Window, report: Callable[[int, Tensor], None]) -> Tensor:
        """The starts in standard deviations from the average, [K, 1, w_dim]; [1, num_ws, w_dim] if one was given."""
        if self.options.start is not None:
            u = ((self.options.start.to(self.device) - self.mean) / self.std)[None]
            return u if self.options.space == "ws" else u.mean(1, keepdim=True)
        seeds = [(self.options.seed + i) % (MAX_SEED + 1) for i in range(self.options.candidates)]
        ws = sample(self.generator, seeds)
        height, width = target.image.shape[2:]
        images = render(
            self.generator,
            ws,
            height=height,
            width=width,
            window=window,
            progress=lambda done, total: report(0, target.image[0]),
        )
        losses = torch.cat([self._loss(part, target) for part in images.split(64)])
        best = losses.topk(min(self.options.starts, len(losses)), largest=False).indices
        return (ws[best, :1] - self.mean) / self.std

    def _nearest(self, u: Tensor, target: _Target, window: Window) -> tuple[Tensor, float]:
        """The starts, or only the best one if it is above `_NEAR`, and the best PSNR."""
        height, width = target.image.shape[2:]
        ws = (self.mean + self.std * u).expand(-1, self.generator.config.num_ws, -1)
        images = render(self.generator, ws, height=height, width=width, window=window)
        near = [target.psnr(image) for image in images]
        best = max(range(len(near)), key=near.__getitem__)
        return (u[best : best + 1] if near[best] > _NEAR else u), near[best]

    def _descend(
        self,
        u: Tensor,
        target: _Target,
        y: Tensor,
        x: Tensor,
        steps: int,
        keep: int,
        tell: Callable[[int, Tensor], None],
    ) -> tuple[Tensor, Tensor]:
        """Run Adam from every start; returns the `keep` best points on the way, and the image [C, h, w] of the best."""
        u = u.detach().clone().requires_grad_()
        optimiser = torch.optim.Adam([u], betas=(0.9, 0.99))
        best = torch.full((len(u),), math.inf, device=self.device)
        found, images = u.detach().clone(), target.image.expand(len(u), -1, -1, -1).clone()
        for step in range(steps + 1):
            ws = (self.mean + self.std * u).expand(-1, self.generator.config.num_ws, -1)
            image = self.generator.synthesis(ws, y, x)
            losses = self._loss(image, target)
            with torch.no_grad():
                better = losses < best
                best = torch.where(better, losses, best)
                found[better], images[better] = u[better], image[better]
                leader = int(best.argmin())
            if step == steps or target.error(image[leader].detach()) < _GOOD_ENOUGH:
                break
            tell(step, images[leader])
            optimiser.param_groups[0]["lr"] = _RATE * min(1.0, 2 * (1 - step / steps))
            optimiser.zero_grad()
            (losses.sum() + _PRIOR * u.square().mean((1, 2)).sum()).backward()
            optimiser.step()
        order = best.argsort()[:keep]
        return found[order], images[order[0]]

    def _loss(self, image: Tensor, target: _Target) -> Tensor:
        """Squared differences of values and gradients, averaged over scales, [K]."""
        difference = target.difference(image)  # scaling and differences are linear, so they apply to the difference
        total = difference.new_zeros(len(difference))
        if self.options.perceptual is not None:
            total = total + self.options.perceptual(image, target.image.expand_as(image))
        scales = min(_SCALES, 1 + int(math.log2(min(difference.shape[2:]))) // 2)
        for scale in range(scales):
            if scale:
                difference = F.avg_pool2d(difference, 2, ceil_mode=True)
            total = total + _mean_square(difference) / scales
            total = total + (_mean_square(difference.diff(dim=2)) + _mean_square(difference.diff(dim=3))) / scales
        return total


class _Target(NamedTuple):
    """The image to find, and the weight of each of its values."""

    image: Tensor  # [1, C, H, W] in -1..1
    weight: Tensor | None = None  # [1, C, H, W] in 0..1; None: all equal

    @classmethod
    def of(cls, image: Tensor, channels: int) -> _Target:
        """From an image [1, 1, 3 or 4, H, W], for a generator with this number of channels.

        Raises:
            ValueError: the image is fully transparent.
        """
        target = _to_channels(image, channels)
        if image.shape[1] < 4 or bool((image[:, 3] >= 1).all()):
            return cls(target)
        alpha = ((image[:, 3:] + 1) / 2).clamp(0, 1)
        if not alpha.any():
            raise ValueError("the picture is transparent all over: there is nothing to search for")
        weight = alpha.expand_as(target).clone()
        if channels == 4:
            weight[:, 3] = 1
        return cls(target, weight)

    def resampled(self, height: int, width: int) -> _Target:
        """At another size; values of weight 0 do not bleed into the others."""
        if self.weight is None:
            return _Target(_resampled(self.image, height, width))
        weight = _resampled(self.weight, height, width).clamp(0, 1)
        weighted = _resampled(self.image * self.weight, height, width)
        return _Target(weighted / weight.clamp_min(1e-4), weight)

    def difference(self, images: Tensor) -> Tensor:
        """The weighted difference, [K, C, H, W]."""
        difference = images - self.image
        return difference if self.weight is None else difference * self.weight

    def error(self, image: Tensor) -> Tensor:
        """Weighted mean squared difference from an image [C, H, W]."""
        squares = (image - self.image[0]).square()
        if self.weight is None:
            return squares.mean()
        return (squares * self.weight[0]).sum() / self.weight.sum()

    def psnr(self, image: Tensor) -> float:
        """PSNR of an image [C, H, W] in dB."""
        return 10 * math.log10(4 / max(self.error(image).item(), 1e-12))


def _mean_square(x: Tensor) -> Tensor:
    """[K, ...] -> [K]; 0 for empty rows."""
    return x.square().flatten(1).sum(1) / max(1, x[0].numel())


def _resampled(image: Tensor, height: int, width: int) -> Tensor:
    """Scale down to samples of the same window, after a blur against aliasing: corner samples stay corner samples."""
    for axis, size in ((2, height), (3, width)):
        sigma = 0.4 * image.shape[axis] / size
        if image.shape[axis] == size:
            continue
        reach = min(math.ceil(3 * sigma), image.shape[axis] - 1)
        kernel = torch.exp(-(torch.arange(-reach, reach + 1, device=image.device) / sigma).square() / 2)
        shape, pad = [1, 1, 1, 1], [0, 0, 0, 0]
        shape[axis] = -1
        pad[2 * (3 - axis) : 2 * (3 - axis) + 2] = reach, reach
        kernel = (kernel / kernel.sum()).view(shape).repeat(image.shape[1], 1, 1, 1)
        image = F.conv2d(F.pad(image, pad, mode="reflect"), kernel, groups=image.shape[1])
    if tuple(image.shape[2:]) == (height, width):
        return image
    return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=True)


def _sizes(height: int, width: int, side: int) -> list[tuple[int, int]]:
    """Sizes of the comparisons, (height, width), doubling up to `side` or the size of the image."""
    longest = max(height, width)
    sides = [min(side, longest)]
    while sides[0] >= 2 * _FIRST_SIDE:
        sides.insert(0, sides[0] // 2)
    return [(max(2, round(height * s / longest)), max(2, round(width * s / longest))) for s in sides]


def _steps_per_size(steps: int, stages: int) -> list[int]:
    """Steps per size: most at the small sizes, which are cheap and decide."""
    first = [round(steps * 0.4 * 0.75**i) for i in range(stages - 1)]
    return [*first, steps - sum(first)] if sum(first) < steps else [steps] + [0] * (stages - 1)


def _to_channels(image: Tensor, channels: int) -> Tensor:
    if image.shape[1] == channels:
        return image
    color = image[:, :3].expand(-1, 3, -1, -1)  # without alpha
    if channels == 1:
        return color.mean(1, keepdim=True)
    return color if channels == 3 else torch.cat([color, torch.ones_like(color[:, :1])], 1)


def _check(images: Tensor, space: str, **numbers: int) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3, 4) or min(images.shape) < 1:
        raise ValueError(f"images must have the shape [N, 1, 3 or 4, H, W], not {list(images.shape)}")
    if min(images.shape[2:]) < 2:
        raise ValueError(
            f"an image of {images.shape[3]} x {images.shape[2]} pixels is too small: at least 2 x 2 are needed"
        )
    if space not in PROJECTION_SPACES:
        raise ValueError(f"space must be one of {list(PROJECTION_SPACES)}, not {space!r}")
    for name, value in numbers.items():
        lowest = 8 if name == "side" else 1
        if value < lowest:
            raise ValueError(f"{name} must be at least {lowest}, not {value}")
