"""Pictures while they grow: whole and small at once, then finer where they have been painted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

SIDE = 512
DRAFTS = (96, 384)
"""Longer sides of the small pictures that are shown first; each if the whole has 16 times as many pixels, or more."""

Draw = Callable[[int, int], Tensor]
"""(height, width) -> the first picture at this size, [1, C, height, width] in -1..1."""


class Growing:
    """A batch of pictures that is being painted, picture by picture.

    Args:
        image: [N, H, W, C] in -1..1; with `draw` it is filled with NaN, which stands for what is not painted yet.
        draw: makes the first picture small; without it pictures are shown as they are.
        longest: side of the whole, of which `image` may be a reduced version.
    """

    def __init__(self, image: Tensor, draw: Draw | None = None, longest: int = 0):
        self.image, self.draw = image, draw
        self.longest = longest or max(image.shape[1:3])
        self.draft: Tensor | None = None
        if draw is not None:
            image.fill_(torch.nan)

    def drafts(self) -> Iterator[Image.Image]:
        """The first picture, whole, coarse and then finer: to be shown before it is painted."""
        if self.draw is None:
            return
        height, width = self.image.shape[1:3]
        for side in DRAFTS if self.image.device.type == "cpu" else DRAFTS[:1]:
            if 4 * side > self.longest:
                return
            scale = side / max(height, width)
            self.draft = self.draw(max(1, round(scale * height)), max(1, round(scale * width))).float().cpu()
            yield self.shown(0)

    def shown(self, i: int) -> Image.Image:
        """Picture i, at most `SIDE` wide and high. If it is not whole: the one before it, or in front of the draft."""
        small = _reduced(self.image[i])
        missing = small.isnan()
        if missing.any() and i > 0 and not self.image[i - 1, -1, -1].isnan().any():
            return self.shown(i - 1)
        if missing.any():
            behind = torch.zeros(()) if self.draft is None else self._behind(small.shape[0], small.shape[1])
            small = torch.where(missing, behind, small)
        pixels = (small * 127.5 + 128).clamp(0, 255).to(torch.uint8)
        return Image.fromarray((pixels.expand(-1, -1, 3) if pixels.shape[-1] == 1 else pixels).numpy())

    def _behind(self, height: int, width: int) -> Tensor:
        """The draft, scaled up."""
        scaled = F.interpolate(self.draft, (height, width), mode="bilinear", align_corners=True)
        return rearrange(scaled[:, :3], "1 c h w -> h w c")


def _reduced(picture: Tensor) -> Tensor:
    """Every so many pixels of [H, W, C], with at most three channels, on the CPU."""
    step = max(1, -(-max(picture.shape[:2]) // SIDE))
    return picture[::step, ::step, :3].float().cpu()
