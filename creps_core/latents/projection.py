"""A picture -> the latent whose picture is most like it, by gradient descent through the generator.

Candidates are pictures of seeds; the best few are followed at a small size, the best of them at larger ones. Every
comparison is made at several scales, of values and of gradients, at the same points of the frame: any size is exact.
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

SPACES = ("w", "ws")
_FIRST_SIDE = 32
_SCALES = 4
_RATE = 0.05  # of Adam, in standard deviations of w
_PRIOR = 1e-4  # of the squared distance from the average, so that what the picture leaves open stays usual
_GOOD_ENOUGH = 2e-5  # the mean squared error of a picture of 8 bits, whose fractions were cut off
_NEAR = 25.0  # decibels from which on a start needs no search
_BYTES_PER_PIXEL = 2900  # per channel of the pixel feature, of one start with what backward needs

Loss = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, int, Tensor], None]


@dataclass(frozen=True)
class Projection:
    """What came of it, one entry per picture."""

    latents: Latents
    psnr: list[float]
    """In decibels, of pictures in 0..1 at the size of the last comparison."""


def project(
    generator: Generator,
    pictures: Tensor,
    *,
    fit: str = "crop",
    space: str = "w",
    steps: int = 300,
    side: int = 128,
    candidates: int = 1024,
    starts: int = 4,
    seed: int = 0,
    start: Tensor | None = None,
    perceptual: Loss | None = None,
    progress: Progress | None = None,
) -> Projection:
    """Find latents that look like pictures.

    Args:
        generator: on any device, with or without inference tensors: a copy of it is worked with.
        pictures: [N, C, H, W] in -1..1, C of 1, 3 or 4; what is transparent has no colour, and does not count.
        fit: how they lie in the frame, as in `render`: rendering the result at their size with this `fit` gives the
            likeness of the whole picture.
        space: `w`, one style for all layers: stays among the pictures of the generator; `ws`, a style per layer, freed
            at the last size: comes nearer to pictures that are not its own.
        steps: of Adam, for each picture.
        side: of the last and largest comparison, in pixels of the longer side; a smaller picture is compared whole.
        candidates: pictures of the seeds `seed`, `seed + 1`... to begin with. A picture of one of them is recognised.
        starts: how many of them are followed.
        start: [num_ws, w_dim], begin there instead; in `w` at the mean of its styles.
        perceptual: a further loss, called with two batches [K, C, h, w] in -1..1, yields [K].
        progress: called as `progress(done, total, picture)` with the present likeness [C, h, w]; what it raises ends
            the work within one step.

    Returns:
        The latents on the CPU, and how near they come.

    Raises:
        ValueError: an argument is out of range.
    """
    _check(pictures, space, steps=steps, side=side, candidates=candidates, starts=starts)
    with torch.inference_mode(False), torch.enable_grad():
        tensors = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
        copy = build_generator(generator.config, tensors).with_training_metadata_of(generator)
        search = _Search(copy, space, steps, side, perceptual)
        search.candidates, search.starts, search.seed = candidates, starts, seed
        search.begin = None if start is None else start.clone()
        found = []
        for i, picture in enumerate(pictures.detach().float().split(1)):

            def report(done: int, likeness: Tensor, i: int = i) -> None:
                if progress is not None:
                    progress(i * steps + done, len(pictures) * steps, likeness)

            found.append(search.run(picture.clone(), fit, report))
    ws = torch.stack([ws for ws, _ in found]).cpu()
    latents = Latents(ws, fingerprint=fingerprint(generator), name=generator.name)
    return Projection(latents, [psnr for _, psnr in found])


def projection_estimate(config: GeneratorConfig, side: int) -> int:
    """Bytes that `project` takes on the generator's device, beyond its weights."""
    return _BYTES_PER_PIXEL * config.biline_channels * side**2


class _Search:
    """Coarse to fine, from many starts to one."""

    candidates: int
    starts: int
    seed: int
    begin: Tensor | None

    def __init__(self, generator: Generator, space: str, steps: int, side: int, perceptual: Loss | None):
        self.generator, self.space, self.steps, self.side = generator, space, steps, side
        self.perceptual = perceptual
        self.device = generator.mapping.w_avg.device
        w = sample_w(generator, 2048)
        self.mean, self.std = w.mean(0).to(self.device), w.std(0).clamp_min(1e-4).to(self.device)

    def run(self, picture: Tensor, fit: str, report: Callable[[int, Tensor], None]) -> tuple[Tensor, float]:
        """[1, C, H, W] -> ws [num_ws, w_dim] and the PSNR."""
        height, width = picture.shape[2:]
        window = fit_window(WHOLE_FRAME, height, width, fit, self.generator.aspect)
        target = _Target.of(picture.to(self.device), self.generator.config.img_channels)
        sizes = _sizes(height, width, self.side)
        u = self._candidates(target.resampled(*sizes[0]), window, report)
        u, near = self._nearest(u, target.resampled(*sizes[-1]), window)
        if near > _NEAR:  # the small sizes, where blur makes a difference, would only lead away
            sizes = sizes[-1:]
        shares = _shares(self.steps, len(sizes))
        done = 0
        likeness, psnr = target.picture, 0.0
        for stage, (size, steps) in enumerate(zip(sizes, shares, strict=True)):
            last = stage == len(sizes) - 1
            if last and self.space == "ws":
                u = u.expand(-1, self.generator.config.num_ws, -1)
            wanted = target.resampled(*size)
            y, x = (sample_positions(window[k], window[k + 2], size[k]) for k in (0, 1))
            begun = done

            def tell(step: int, likeness: Tensor, begun: int = begun) -> None:
                report(begun + step, likeness)

            u, likeness = self._descend(u, wanted, y, x, steps, 1 if last else -(-len(u) // 2), tell)
            done += steps
            psnr = wanted.psnr(likeness)
        report(done, likeness)
        return (self.mean + self.std * u[0]).expand(self.generator.config.num_ws, -1), psnr

    def _candidates(self, target: _Target, window: Window, report: Callable[[int, Tensor], None]) -> Tensor:
        """Where to start, in standard deviations from the average: [K, 1, w_dim]; or [1, num_ws, w_dim] as given."""
        if self.begin is not None:
            u = ((self.begin.to(self.device) - self.mean) / self.std)[None]
            return u if self.space == "ws" else u.mean(1, keepdim=True)
        seeds = [(self.seed + i) % (MAX_SEED + 1) for i in range(self.candidates)]
        ws = sample(self.generator, seeds)
        height, width = target.picture.shape[2:]
        pictures = render(
            self.generator,
            ws,
            height=height,
            width=width,
            window=window,
            progress=lambda done, total: report(0, target.picture[0]),
        )
        losses = torch.cat([self._loss(part, target) for part in pictures.split(64)])
        best = losses.topk(min(self.starts, len(losses)), largest=False).indices
        return (ws[best, :1] - self.mean) / self.std

    def _nearest(self, u: Tensor, target: _Target, window: Window) -> tuple[Tensor, float]:
        """The starts, or only the best of them if it is near already, and its PSNR."""
        height, width = target.picture.shape[2:]
        ws = (self.mean + self.std * u).expand(-1, self.generator.config.num_ws, -1)
        pictures = render(self.generator, ws, height=height, width=width, window=window)
        near = [target.psnr(picture) for picture in pictures]
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
        """Adam from every start; the `keep` best places that were passed, and the likeness [C, h, w] of the best."""
        u = u.detach().clone().requires_grad_()
        optimiser = torch.optim.Adam([u], betas=(0.9, 0.99))
        best = torch.full((len(u),), math.inf, device=self.device)
        place, likeness = u.detach().clone(), target.picture.expand(len(u), -1, -1, -1).clone()
        for step in range(steps + 1):
            ws = (self.mean + self.std * u).expand(-1, self.generator.config.num_ws, -1)
            picture = self.generator.synthesis(ws, y, x)
            losses = self._loss(picture, target)
            with torch.no_grad():
                better = losses < best
                best = torch.where(better, losses, best)
                place[better], likeness[better] = u[better], picture[better]
                leader = int(best.argmin())
            if step == steps or target.error(picture[leader].detach()) < _GOOD_ENOUGH:
                break
            tell(step, likeness[leader])
            optimiser.param_groups[0]["lr"] = _RATE * min(1.0, 2 * (1 - step / steps))
            optimiser.zero_grad()
            (losses.sum() + _PRIOR * u.square().mean((1, 2)).sum()).backward()
            optimiser.step()
        order = best.argsort()[:keep]
        return place[order], likeness[order[0]]

    def _loss(self, picture: Tensor, target: _Target) -> Tensor:
        """Squared differences of values and gradients, averaged over scales, [K]."""
        difference = target.difference(picture)  # scaling and taking gradients are linear
        total = difference.new_zeros(len(difference))
        if self.perceptual is not None:
            total = total + self.perceptual(picture, target.picture.expand_as(picture))
        scales = min(_SCALES, 1 + int(math.log2(min(difference.shape[2:]))) // 2)
        for scale in range(scales):
            if scale:
                difference = F.avg_pool2d(difference, 2, ceil_mode=True)
            total = total + _mean_square(difference) / scales
            total = total + (_mean_square(difference.diff(dim=2)) + _mean_square(difference.diff(dim=3))) / scales
        return total


class _Target(NamedTuple):
    """The picture to be found, and how much each of its values counts."""

    picture: Tensor  # [1, C, H, W] in -1..1
    weight: Tensor | None = None  # [1, C, H, W] in 0..1; None: all alike

    @classmethod
    def of(cls, picture: Tensor, channels: int) -> _Target:
        """From a picture with 1, 3 or 4 channels.

        Raises:
            ValueError: there is nothing to see.
        """
        target = _to_channels(picture, channels)
        if picture.shape[1] < 4 or bool((picture[:, 3] >= 1).all()):
            return cls(target)
        alpha = ((picture[:, 3:] + 1) / 2).clamp(0, 1)
        if not alpha.any():
            raise ValueError("the picture is transparent all over: there is nothing to search for")
        weight = alpha.expand_as(target).clone()
        if channels == 4:
            weight[:, 3] = 1
        return cls(target, weight)

    def resampled(self, height: int, width: int) -> _Target:
        """At another size; what counts for nothing does not bleed into the rest."""
        if self.weight is None:
            return _Target(_resampled(self.picture, height, width))
        weight = _resampled(self.weight, height, width).clamp(0, 1)
        weighted = _resampled(self.picture * self.weight, height, width)
        return _Target(weighted / weight.clamp_min(1e-4), weight)

    def difference(self, pictures: Tensor) -> Tensor:
        """[K, C, H, W], weighted."""
        difference = pictures - self.picture
        return difference if self.weight is None else difference * self.weight

    def error(self, picture: Tensor) -> Tensor:
        """The mean squared difference from a picture [C, H, W] where it counts."""
        squares = (picture - self.picture[0]).square()
        if self.weight is None:
            return squares.mean()
        return (squares * self.weight[0]).sum() / self.weight.sum()

    def psnr(self, picture: Tensor) -> float:
        """The likeness of a picture [C, H, W] in decibels."""
        return 10 * math.log10(4 / max(self.error(picture).item(), 1e-12))


def _mean_square(x: Tensor) -> Tensor:
    """[K, ...] -> [K]; 0 of nothing."""
    return x.square().flatten(1).sum(1) / max(1, x[0].numel())


def _resampled(picture: Tensor, height: int, width: int) -> Tensor:
    """Scale down to samples at the same points of the frame: corners stay corners, after a blur against aliasing."""
    for axis, size in ((2, height), (3, width)):
        sigma = 0.4 * picture.shape[axis] / size
        if picture.shape[axis] == size:
            continue
        reach = min(math.ceil(3 * sigma), picture.shape[axis] - 1)
        kernel = torch.exp(-(torch.arange(-reach, reach + 1, device=picture.device) / sigma).square() / 2)
        shape, pad = [1, 1, 1, 1], [0, 0, 0, 0]
        shape[axis] = -1
        pad[2 * (3 - axis) : 2 * (3 - axis) + 2] = reach, reach
        kernel = (kernel / kernel.sum()).view(shape).repeat(picture.shape[1], 1, 1, 1)
        picture = F.conv2d(F.pad(picture, pad, mode="reflect"), kernel, groups=picture.shape[1])
    if tuple(picture.shape[2:]) == (height, width):
        return picture
    return F.interpolate(picture, size=(height, width), mode="bilinear", align_corners=True)


def _sizes(height: int, width: int, side: int) -> list[tuple[int, int]]:
    """Sizes of the comparisons, doubling up to `side` or the picture's own."""
    longest = max(height, width)
    sides = [min(side, longest)]
    while sides[0] >= 2 * _FIRST_SIDE:
        sides.insert(0, sides[0] // 2)
    return [(max(2, round(height * s / longest)), max(2, round(width * s / longest))) for s in sides]


def _shares(steps: int, stages: int) -> list[int]:
    """Steps per size: the small ones are cheap and decide."""
    first = [round(steps * 0.4 * 0.75**i) for i in range(stages - 1)]
    return [*first, steps - sum(first)] if sum(first) < steps else [steps] + [0] * (stages - 1)


def _to_channels(picture: Tensor, channels: int) -> Tensor:
    if picture.shape[1] == channels:
        return picture
    color = picture[:, :3].expand(-1, 3, -1, -1)  # without alpha
    if channels == 1:
        return color.mean(1, keepdim=True)
    return color if channels == 3 else torch.cat([color, torch.ones_like(color[:, :1])], 1)


def _check(pictures: Tensor, space: str, **numbers: int) -> None:
    if pictures.ndim != 4 or pictures.shape[1] not in (1, 3, 4) or min(pictures.shape) < 1:
        raise ValueError(f"pictures must have the shape [N, 1, 3 or 4, H, W], not {list(pictures.shape)}")
    if min(pictures.shape[2:]) < 2:
        raise ValueError(f"a picture of {pictures.shape[3]} x {pictures.shape[2]} pixels shows too little")
    if space not in SPACES:
        raise ValueError(f"space must be one of {list(SPACES)}, not {space!r}")
    for name, value in numbers.items():
        lowest = 8 if name == "side" else 1
        if value < lowest:
            raise ValueError(f"{name} must be at least {lowest}, not {value}")
