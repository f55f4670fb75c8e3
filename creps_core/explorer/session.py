"""A session: what one page looks at, drawn as fast as it moves."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor

from ..latents import Directions
from ..network import Generator
from ..rendering import RenderCache, View, render_view
from .budget import Budget
from .scene import Scene
from .walk import Walker

MAX_STAGE = 4096
"""Pixels of the page's stage, per side."""
_LONGEST_KEPT = 4096  # positions of a line that is kept for the next frame
_DRAFT = {"quality": 82}
_SHARP = {"quality": 95, "subsampling": 0}
_CHECK = 12  # pixels of the stage
_CHECKS = torch.tensor(150), torch.tensor(104)
FRAMES_PER_SECOND = {"cpu": 18, "cuda": 60}


@dataclass(frozen=True)
class Stage:
    """Where the page shows pictures, in device pixels: the final picture's frame lies in the middle of it."""

    width: int
    height: int
    frame: int  # the longer side of the frame

    def __post_init__(self) -> None:
        for name in ("width", "height", "frame"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MAX_STAGE:
                raise ValueError(f"{name} of the stage must be a whole number from 1 to {MAX_STAGE}, not {value!r}")

    def view(self, view: View, picture: tuple[int, int] = (1, 1), aspect: tuple[int, int] = (1, 1)) -> View:
        """What the whole stage shows, when its frame shows `view`: the pixels of both are the same ones.

        Args:
            picture: width and height of the final picture.
            aspect: width and height of the generator's own frame.
        """

        def pitch(width: int, height: int) -> float:
            """From pixel to pixel at zoom 1, in longer sides of the generator's frame; see `View.extent`."""
            return min(aspect[0] / max(width - 1, 1), aspect[1] / max(height - 1, 1)) / max(aspect)

        width, height = (max(1, round(self.frame * side / max(picture))) for side in picture)
        scale = pitch(self.width, self.height) / pitch(width, height)
        return view if scale == 1 else replace(view, zoom=view.zoom * scale)


@dataclass(frozen=True)
class Request:
    """A picture that a page asks for."""

    number: int
    scene: Scene
    stage: Stage
    sharp: bool = False  # every pixel of the stage; else as many as there is time for
    side: int = 0  # of a sharp picture that may have fewer pixels: its longer side; 0 for all
    time: float | None = None  # of the film, in seconds; None for the scene's look
    source: str = ""  # the generator's name


@dataclass(frozen=True)
class Frame:
    """A picture for the page."""

    pixels: Tensor
    """[H, W, 3] uint8 on the CPU."""
    view: View
    """What the page's frame (not the whole stage) shows."""
    sharp: bool
    seconds: float

    @property
    def quality(self) -> int:
        """Of its JPEG."""
        return (_SHARP if self.sharp else _DRAFT)["quality"]

    def jpeg(self) -> bytes:
        """Encoded: on one core 0.3 ms at 256 squared, where WebP takes 1.5 ms."""
        file = io.BytesIO()
        Image.fromarray(self.pixels.numpy()).save(file, "JPEG", **(_SHARP if self.sharp else _DRAFT))
        return file.getvalue()


class Session:
    """Draws the requests of one page, one at a time.

    Args:
        generator: on any device.
        linked: directions for walks of the kind `linked`.
    """

    def __init__(self, generator: Generator, linked: Directions | None = None):
        self.generator, self.walker = generator, Walker(generator, linked)
        device = generator.mapping.w_avg.device.type
        self.budget = Budget(1 / FRAMES_PER_SECOND.get(device, 60))
        self._cache, self._tables, self._styles = RenderCache(_LONGEST_KEPT), [], torch.empty(0)

    def draw(self, request: Request, check: Callable[[], None] = lambda: None) -> Frame:
        """The picture of a request.

        A sharp one is, within the frame, the picture that `render_view` makes for a picture of the frame's size.

        Args:
            check: called between tiles; what it raises ends the work.

        Raises:
            ValueError: see `Walker.latents`.
        """
        start = time.perf_counter()
        latents, view = self.walker.at(request.scene, request.time)
        stage = request.stage
        width, height = stage.width, stage.height
        side = request.side if request.sharp else self.budget.side(max(width, height))
        if side:
            scale = min(1.0, side / max(width, height))
            width, height = max(1, round(width * scale)), max(1, round(height * scale))
        whole = (width, height) == (stage.width, stage.height)
        channels = self.generator.config.img_channels
        pixels = torch.empty((1, height, width, channels), dtype=torch.uint8)
        if not torch.equal(self._styles, latents.ws):  # tables belong to a latent
            self._tables, self._styles = [], latents.ws
        try:
            render_view(
                self.generator,
                latents.ws,
                stage.view(view, (request.scene.width, request.scene.height), self.generator.aspect),
                height=height,
                width=width,
                of=None if whole else (stage.height, stage.width),
                quality="good" if request.sharp else "draft",
                progress=lambda done, total: check(),
                out=rearrange(pixels, "n h w c -> n c h w"),
                tables=self._tables,
                cache=self._cache,
            )
        finally:  # a draft that was given up took too long as well
            seconds = time.perf_counter() - start
            if not request.sharp:
                self.budget.took(seconds, width * height, max(width, height))
        if channels == 1:
            picture = repeat(pixels[0], "h w 1 -> h w 3")
        else:
            picture = pixels[0] if channels == 3 else over_checks(pixels[0], stage)
        return Frame(picture, view, request.sharp, seconds)


def over_checks(pixels: Tensor, stage: Stage) -> Tensor:
    """A picture with transparency [H, W, 4] uint8 over the grey checks that stand for nothing, [H, W, 3]."""
    height, width, _ = pixels.shape
    down, across = (
        torch.arange(size) * side // (size * _CHECK) for size, side in ((height, stage.height), (width, stage.width))
    )
    checks = torch.where((down[:, None] + across) % 2 == 0, *_CHECKS)[..., None]
    alpha = pixels[..., 3:].int()
    return ((pixels[..., :3].int() * alpha + checks * (255 - alpha)) // 255).byte()
