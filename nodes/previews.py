"""Previews of images while they are rendered: whole and small at once, then at full detail from the top down."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

MAX_PREVIEW_SIDE = 512
"""Longer side of a preview in pixels."""
DRAFTS = (96, 384)
"""Longer sides of the drafts that are shown first. Each is rendered only if the image has at least 16 times as many
pixels."""

DrawDraft = Callable[[int, int], Tensor]
"""(height, width) -> the first image at this size, [1, C, height, width] in -1..1."""


class ProgressivePreview:
    """Previews of a batch of images that is being rendered, image by image.

    Args:
        image: [N, H, W, C] in -1..1. With `draw` it is filled with NaN, which marks pixels that are not rendered yet.
        draw: renders a draft of the first image; without it there are no drafts.
        longest: longer side of the full image, if `image` is a reduced version of it.
    """

    def __init__(self, image: Tensor, draw: DrawDraft | None = None, longest: int = 0):
        self.image, self.draw = image, draw
        self.longest = longest or max(image.shape[1:3])
        self.draft: Tensor | None = None
        if draw is not None:
            image.fill_(torch.nan)

    def drafts(self) -> Iterator[Image.Image]:
        """The whole first image, coarse and then finer, to show before rendering starts."""
        if self.draw is None:
            return
        height, width = self.image.shape[1:3]
        for side in DRAFTS if self.image.device.type == "cpu" else DRAFTS[:1]:
            if 4 * side > self.longest:
                return
            scale = side / max(height, width)
            self.draft = self.draw(max(1, round(scale * height)), max(1, round(scale * width))).float().cpu()
            yield self.preview(0)

    def preview(self, i: int) -> Image.Image:
        """Image i, at most `MAX_PREVIEW_SIDE` wide and high. While it is incomplete: the image before it, or else its
        rendered pixels over the draft."""
        small = _reduced(self.image[i])
        missing = small.isnan()
        if missing.any() and i > 0 and not self.image[i - 1, -1, -1].isnan().any():
            return self.preview(i - 1)
        if missing.any():
            behind = torch.zeros(()) if self.draft is None else self._scaled_draft(small.shape[0], small.shape[1])
            small = torch.where(missing, behind, small)
        pixels = (small * 127.5 + 128).clamp(0, 255).to(torch.uint8)
        return Image.fromarray((pixels.expand(-1, -1, 3) if pixels.shape[-1] == 1 else pixels).numpy())

    def _scaled_draft(self, height: int, width: int) -> Tensor:
        """The draft scaled up, [height, width, C]."""
        scaled = F.interpolate(self.draft, (height, width), mode="bilinear", align_corners=True)
        return rearrange(scaled[:, :3], "1 c h w -> h w c")


def _reduced(image: Tensor) -> Tensor:
    """Every n-th pixel of [H, W, C], at most `MAX_PREVIEW_SIDE` per side and three channels, on the CPU."""
    step = max(1, -(-max(image.shape[:2]) // MAX_PREVIEW_SIDE))
    return image[::step, ::step, :3].float().cpu()
