"""Compare a native image with versions that were rendered small and scaled up: a sheet, and the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw
from torch import Tensor

from .measures import Spectrum, finest_detail, psnr, spectrum, ssim
from .plot import Axis, Curve, line_plot
from .sheet import DIM, TEXT, Color, canvas, fitting, font

MIN_COMPARED_SIDE = 32
"""Smallest height or width of images to compare."""
MAX_REGIONS = 8
_MARGIN, _GAP = 40, 20
_CELL, _SHEET = 320, 1280  # smallest width of a cell and of the sheet
_PLOT = 320  # height
_COLORS: tuple[Color, ...] = (
    (255, 159, 67),
    (84, 160, 255),
    (46, 213, 161),
    (255, 107, 129),
    (254, 211, 90),
    (176, 150, 255),
    (64, 207, 214),
    (222, 160, 120),
)
_MARK: Color = (255, 255, 255)
# Colour map of the difference maps: black, violet, red, orange, white.
_HEAT = np.array([(17, 12, 28), (84, 24, 105), (190, 55, 82), (249, 155, 37), (255, 250, 214)], np.float32)
_RANGE_PERCENTILE = 0.995
_ABOUT = (
    "True detail: the finest waves that agree with the",
    "native picture; 2 pixels is the finest there can be.",
    "The marks in the plots below show where it ends.",
)


@dataclass(frozen=True)
class Version:
    """An image that is compared with the native one."""

    name: str
    image: Tensor  # [H, W, 3], at the native size
    given: tuple[int, int]  # (height, width) as given
    psnr: float
    ssim: float
    spectrum: Spectrum
    detail: float
    """Period in pixels of the finest detail that agrees with the native image, see `finest_detail`."""


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`."""

    sheet: np.ndarray  # [h, w, 3] uint8
    versions: list[Version]
    regions: list[tuple[int, int, int, int]]  # shown enlarged, (top, left, bottom, right) in pixels
    report: str


def compare(
    native: Tensor,
    others: Mapping[str, Tensor],
    *,
    regions: int | Sequence[tuple[float, float]] = 3,
    zoom: int = 4,
) -> Comparison:
    """Compare images with a native one.

    Args:
        native: [H, W, 3] in 0..1, at least 32 pixels per side.
        others: name -> [h, w, 3]; other sizes are scaled to the native one (Lanczos, by Pillow).
        regions: how many to show enlarged, chosen where the images differ most, without overlap; or the centres of
            regions as (y, x), 0..1 across the image.
        zoom: enlargement of the regions.

    Raises:
        ValueError: an image is too small, there is nothing to compare, or a region lies outside.
    """
    if not others:
        raise ValueError("there is nothing to compare the native picture with")
    if native.ndim != 3 or min(native.shape[:2]) < MIN_COMPARED_SIDE:
        raise ValueError(
            f"the native picture must be [H, W, 3] with at least {MIN_COMPARED_SIDE} pixels, not {native.shape}"
        )
    native = _rgb(native)
    height, width = native.shape[:2]
    versions = []
    for name, other in others.items():
        image = resized(_rgb(other), height, width)
        own = spectrum(image, native)
        given = (other.shape[0], other.shape[1])
        versions.append(Version(name, image, given, psnr(image, native), ssim(image, native), own, finest_detail(own)))
    columns = 1 + len(versions)
    cell = max(_CELL, (_SHEET - 2 * _MARGIN - (columns - 1) * _GAP) // columns)
    if not 1 <= zoom <= cell // 8:
        raise ValueError(f"zoom must be from 1 to {cell // 8}, not {zoom}")
    side = min(cell // zoom, height, width)
    if isinstance(regions, int):
        boxes = find_regions(native, [v.image for v in versions], min(regions, MAX_REGIONS), side)
    else:
        boxes = [_box_around(y, x, side, height, width) for y, x in regions[:MAX_REGIONS]]
    own = spectrum(native, native)
    sheet = _Sheet(native, own, versions, boxes, cell).draw()
    return Comparison(sheet, versions, boxes, comparison_report(native, versions))


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """Resize [h, w, 3] to [height, width, 3] by Pillow's Lanczos filter, without rounding to 8 bits."""
    if image.shape[:2] == (height, width):
        return image
    planes = [
        Image.fromarray(plane.numpy()).resize((width, height), Image.Resampling.LANCZOS)
        for plane in rearrange(image, "h w c -> c h w").contiguous()
    ]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in planes], -1)).clamp_(0, 1)


def find_regions(native: Tensor, others: Sequence[Tensor], count: int, side: int) -> list[tuple[int, int, int, int]]:
    """Squares of `side` pixels where the images differ most from the native one, largest difference first, without
    overlap: (top, left, bottom, right). Fewer than `count` if there is no room for more.
    """
    step = max(1, side // 8)
    squares = sum((other - native).square().mean(-1) for other in others)
    assert isinstance(squares, Tensor)
    scores = F.avg_pool2d(squares[None], side, step)[0]
    found = []
    for _ in range(count):
        best = int(scores.argmax())
        row, column = divmod(best, scores.shape[1])
        if scores[row, column] < 0:
            break
        found.append((row * step, column * step, row * step + side, column * step + side))
        near = math.ceil(side / step)
        scores[max(0, row - near + 1) : row + near, max(0, column - near + 1) : column + near] = -1
    return found


def comparison_report(native: Tensor, versions: Sequence[Version]) -> str:
    """The numbers as a text table."""
    height, width = native.shape[:2]
    longest = max(len("picture"), *(len(v.name) for v in versions))
    lines = [
        f"Against the native picture of {width} x {height}:",
        "",
        f"{'picture':<{longest}}   {'given as':>13}   {'PSNR':>9}   {'SSIM':>6}   {'true detail down to':>19}",
    ]
    for v in versions:
        decibels = "identical" if math.isinf(v.psnr) else f"{v.psnr:6.2f} dB"
        given = f"{v.given[1]} x {v.given[0]}"
        lines.append(f"{v.name:<{longest}}   {given:>13}   {decibels:>9}   {v.ssim:6.4f}   {v.detail:>12.1f} pixels")
    lines += [
        "",
        "True detail: the period of the finest waves whose ring correlation with the native picture is at least 0.5;",
        "2 pixels is the finest that a picture can hold.",
    ]
    return "\n".join(lines)


def _rgb(image: Tensor) -> Tensor:
    image = image[..., :3].to("cpu", torch.float32)
    return image.expand(-1, -1, 3) if image.shape[-1] == 1 else image


def _box_around(y: float, x: float, side: int, height: int, width: int) -> tuple[int, int, int, int]:
    if not (0 <= y <= 1 and 0 <= x <= 1):
        raise ValueError(f"the centre of a region must be from 0 to 1 across the picture, not ({y}, {x})")
    top = min(max(round(y * height - side / 2), 0), height - side)
    left = min(max(round(x * width - side / 2), 0), width - side)
    return top, left, top + side, left + side


def _pixels(image: Tensor) -> Image.Image:
    return Image.fromarray((image * 255 + 0.5).clamp(0, 255).to(torch.uint8).numpy())


class _Sheet:
    """Draws from top to bottom: title, images, enlarged regions, difference maps, plots."""

    def __init__(
        self,
        native: Tensor,
        own: Spectrum,
        versions: Sequence[Version],
        boxes: Sequence[tuple[int, int, int, int]],
        cell: int,
    ):
        self.native, self.own, self.versions, self.boxes, self.cell = native, own, versions, boxes, cell
        self.columns = 1 + len(versions)
        self.width = 2 * _MARGIN + self.columns * cell + (self.columns - 1) * _GAP
        self.full = max(1, round(cell * native.shape[0] / native.shape[1]))  # height of a whole picture
        heights = [70, self.full + 112, *([cell + _GAP] * len(boxes)), max(self.full, 190) + 56, _PLOT]
        self.image = canvas(2 * _MARGIN - 10 + sum(heights), self.width)
        self.pen = ImageDraw.Draw(self.image)

    def left(self, column: int) -> int:
        return _MARGIN + column * (self.cell + _GAP)

    def text(self, at: tuple[float, float], text: str, size: int, color: Color = TEXT, anchor: str = "la") -> None:
        self.pen.text(at, text, color, font(size), anchor)

    def draw(self) -> np.ndarray:
        height, width = self.native.shape[:2]
        y = _MARGIN - 10
        self.text((_MARGIN, y), "Rendered natively, and scaled up", 30)
        self.text((_MARGIN, y + 40), f"one latent at {width} x {height}", 18, DIM)
        y += 70 + 6
        self.images(y)
        y += self.full + 112
        for number, box in enumerate(self.boxes, 1):
            self.region(y, number, box)
            y += self.cell + _GAP
        self.differences(y)
        y += max(self.full, 190) + 56
        self.plots(y)
        return np.asarray(self.image)

    def images(self, y: int) -> None:
        whole = (self.cell, self.full)
        filter = Image.Resampling.LANCZOS if self.native.shape[1] >= self.cell else Image.Resampling.NEAREST
        for i, image in enumerate([self.native, *(v.image for v in self.versions)]):
            self.image.paste(_pixels(image).resize(whole, filter), (self.left(i), y))
        scale = self.cell / self.native.shape[1]
        for number, (top, left, bottom, right) in enumerate(self.boxes, 1):
            x0, x1 = (self.left(0) + x * scale for x in (left, right))
            y0, y1 = (y + v * scale for v in (top, bottom))
            self.pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=(0, 0, 0), width=4)
            self.pen.rectangle((x0, y0, x1, y1), outline=_MARK, width=2)
            self.badge(x1 if x1 + 18 < self.left(0) + self.cell else x0 - 18, y0, number, 18)
        y += self.full + 12
        self.label(0, y, "native", _MARK, ["rendered at this size", "", ""])
        for i, v in enumerate(self.versions, 1):
            given = f"{v.given[1]} x {v.given[0]}"
            if v.given != tuple(self.native.shape[:2]):
                given += ", scaled by Lanczos"
            decibels = "identical" if math.isinf(v.psnr) else f"{v.psnr:.1f} dB"
            numbers = [given, f"PSNR {decibels}    SSIM {v.ssim:.3f}", f"true detail down to {v.detail:.1f} pixels"]
            self.label(i, y, v.name, _COLORS[(i - 1) % len(_COLORS)], numbers)

    def label(self, column: int, y: int, name: str, color: Color, lines: Sequence[str]) -> None:
        x = self.left(column)
        self.pen.rounded_rectangle((x, y + 4, x + 14, y + 18), 4, color)
        self.text((x + 24, y), fitting(name, self.cell - 24, 20), 20)
        for i, line in enumerate(lines):
            self.text((x, y + 30 + 20 * i), fitting(line, self.cell, 15), 15, DIM)

    def badge(self, x: float, y: float, number: int, size: int) -> None:
        self.pen.rectangle((x, y, x + size, y + size), _MARK)
        self.text((x + size / 2, y + size / 2), str(number), size * 3 // 4, (0, 0, 0), "mm")

    def region(self, y: int, number: int, box: tuple[int, int, int, int]) -> None:
        top, left, bottom, right = box
        for i, image in enumerate([self.native, *(v.image for v in self.versions)]):
            crop = _pixels(image[top:bottom, left:right])
            self.image.paste(crop.resize((self.cell, self.cell), Image.Resampling.NEAREST), (self.left(i), y))
        self.badge(self.left(0), y, number, 24)

    def differences(self, y: int) -> None:
        maps = [(v.image - self.native).abs().amax(-1) for v in self.versions]
        # One range for all maps, so that colours mean the same in each; estimated from a sample.
        flat = torch.cat([m.flatten()[:: max(1, m.numel() // 100_000)] for m in maps])
        largest = max(flat.quantile(_RANGE_PERCENTILE).item(), 1 / 255)
        for i, difference in enumerate(maps, 1):
            reduced = F.adaptive_avg_pool2d(difference[None], (self.full, self.cell))[0] / largest
            self.image.paste(Image.fromarray(_heat(reduced.numpy())), (self.left(i), y))
        x, bar = self.left(0), np.linspace(0, 1, self.cell, dtype=np.float32)[None].repeat(14, 0)
        self.text((x, y), "Difference from the native picture", 18)
        self.text((x, y + 28), "the largest of red, green and blue", 15, DIM)
        self.image.paste(Image.fromarray(_heat(bar)), (x, y + 60))
        self.text((x, y + 80), "0", 14, DIM)
        self.text((x + self.cell, y + 80), f"{largest * 255:.0f} of 255 or more", 14, DIM, "ra")
        for i, line in enumerate(_ABOUT):
            self.text((x, y + 124 + 20 * i), line, 15, DIM)

    def plots(self, y: int) -> None:
        width = (self.width - 2 * _MARGIN - 2 * _GAP) // 2
        everything = [(self.own, _MARK)]
        everything += [(v.spectrum, _COLORS[i % len(_COLORS)]) for i, v in enumerate(self.versions)]
        everything.reverse()  # the native curve on top
        frequencies = self.own.frequency.tolist()
        periods = [2**k for k in range(1, 12) if frequencies[0] <= 1 / 2**k <= 0.5]
        x = Axis(frequencies[0], 0.5, [(1 / p, str(p)) for p in periods], "size of the detail, in pixels", math.log2)
        peak = self.own.power.max().item()

        def decibels(power: Tensor) -> list[float]:
            return (10 * (power / peak).clamp(min=1e-30).log10()).tolist()

        marks = [(1 / v.detail, _COLORS[i % len(_COLORS)]) for i, v in enumerate(self.versions) if v.detail > 2]
        lowest = min(-40.0, min(decibels(self.own.power)) - 20)
        step = 20 if lowest > -130 else 40
        ticks = [(float(v), str(v)) for v in range(0, int(lowest) - 1, -step)]
        power = Axis(lowest, 5.0, ticks, "dB")
        curves = [Curve(s.frequency.tolist(), decibels(s.power), color) for s, color in everything]
        title = "How much detail: power spectrum"
        self.image.paste(line_plot(width, _PLOT, title, x, power, curves, marks), (_MARGIN, y))
        ticks = [(v / 4, f"{v / 4:g}") for v in range(-1, 5)]
        agreement = Axis(-0.25, 1.05, ticks, "correlation")
        curves = [Curve(s.frequency.tolist(), s.agreement.tolist(), color) for s, color in everything]
        title = "How right it is: agreement with the native picture"
        self.image.paste(line_plot(width, _PLOT, title, x, agreement, curves, marks), (_MARGIN + width + 2 * _GAP, y))


def _heat(values: np.ndarray) -> np.ndarray:
    """Apply the colour map to [h, w], clipped to 0..1 -> [h, w, 3] uint8."""
    at = np.clip(values, 0, 1) * (len(_HEAT) - 1)
    knots = np.arange(len(_HEAT))
    return np.stack([np.interp(at, knots, _HEAT[:, c]) for c in range(3)], -1).round().astype(np.uint8)
