"""A session of one page: draw its requests with one generator."""

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
from .frame_sizer import FrameSizer
from .scene import Scene
from .walk import Walker

MAX_VIEWPORT = 4096
"""Largest side of the page's viewport, in pixels."""
_MAX_CACHED_POSITIONS = 4096  # of a bi-line that is cached for the next frame
_DRAFT = {"quality": 82}
_SHARP = {"quality": 95, "subsampling": 0}
_CHECK = 12  # side of a square of the checkerboard, in viewport pixels
_CHECKS = torch.tensor(150), torch.tensor(104)
FRAMES_PER_SECOND = {"cpu": 18, "cuda": 60}
"""Target by type of device."""


@dataclass(frozen=True)
class Viewport:
    """Where the page shows images, in device pixels: the frame of the final image lies in its middle.

    Raises:
        ValueError: a side is not an integer from 1 to `MAX_VIEWPORT`.
    """

    width: int
    height: int
    frame: int  # longer side of the frame

    def __post_init__(self) -> None:
        for name in ("width", "height", "frame"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= MAX_VIEWPORT:
                raise ValueError(f"{name} of the stage must be a whole number from 1 to {MAX_VIEWPORT}, not {value!r}")

    def view(self, view: View, image: tuple[int, int] = (1, 1), aspect: tuple[int, int] = (1, 1)) -> View:
        """The view of the whole viewport when its frame shows `view`, with the same pixel pitch.

        Args:
            image: width and height of the final image.
            aspect: width and height of the generator's own frame.
        """

        def pitch(width: int, height: int) -> float:
            """Distance of adjacent pixels at zoom 1, in longer sides of the generator's frame; see `View.extent`."""
            return min(aspect[0] / max(width - 1, 1), aspect[1] / max(height - 1, 1)) / max(aspect)

        width, height = (max(1, round(self.frame * side / max(image))) for side in image)
        scale = pitch(self.width, self.height) / pitch(width, height)
        return view if scale == 1 else replace(view, zoom=view.zoom * scale)


@dataclass(frozen=True)
class FrameRequest:
    """A frame that a page asks for."""

    number: int
    scene: Scene
    viewport: Viewport
    sharp: bool = False  # all pixels of the viewport; else as many as fit the time per frame
    side: int = 0  # longer side of a sharp frame with fewer pixels; 0: all pixels
    time: float | None = None  # in the film, in seconds; None: the scene's shot
    source: str = ""  # name of the generator


@dataclass(frozen=True)
class RenderedFrame:
    """A frame for the page."""

    pixels: Tensor
    """[H, W, 3] uint8 on the CPU."""
    view: View
    """View of the frame in the viewport, not of the whole viewport."""
    sharp: bool
    seconds: float
    """Time to draw it."""

    @property
    def quality(self) -> int:
        """JPEG quality, 0..100."""
        return (_SHARP if self.sharp else _DRAFT)["quality"]

    def jpeg(self) -> bytes:
        """Encode as JPEG: 0.3 ms on one core at 256 x 256, where WebP takes 1.5 ms."""
        file = io.BytesIO()
        Image.fromarray(self.pixels.numpy()).save(file, "JPEG", **(_SHARP if self.sharp else _DRAFT))
        return file.getvalue()


class Session:
    """Draws the requests of one page, one at a time.

    Args:
        generator: on any device.
        linked: directions for walks of kind `linked`.
    """

    generator: Generator
    walker: Walker

    def __init__(self, generator: Generator, linked: Directions | None = None):
        self.generator, self.walker = generator, Walker(generator, linked)
        device = generator.mapping.w_avg.device.type
        self.sizer: FrameSizer = FrameSizer(1 / FRAMES_PER_SECOND.get(device, 60))
        self._cache, self._tables, self._ws = RenderCache(_MAX_CACHED_POSITIONS), [], torch.empty(0)

    def draw(self, request: FrameRequest, check: Callable[[], None] = lambda: None) -> RenderedFrame:
        """Render a request.

        Within the frame, a sharp result equals `render_view` at the frame's size.

        Args:
            check: called between tiles; an exception from it cancels the drawing.

        Raises:
            ValueError: see `Walker.latents`.
        """
        start = time.perf_counter()
        latents, view = self.walker.at(request.scene, request.time)
        viewport, image = request.viewport, (request.scene.width, request.scene.height)
        width, height = self._size(request)
        full_size = (width, height) == (viewport.width, viewport.height)
        pixels = torch.empty((1, height, width, self.generator.config.img_channels), dtype=torch.uint8)
        if not torch.equal(self._ws, latents.ws):  # tables are valid for one latent
            self._tables, self._ws = [], latents.ws
        try:
            render_view(
                self.generator,
                latents.ws,
                viewport.view(view, image, self.generator.aspect),
                height=height,
                width=width,
                of=None if full_size else (viewport.height, viewport.width),
                quality="good" if request.sharp else "draft",
                progress=lambda done, total: check(),
                out=rearrange(pixels, "n h w c -> n c h w"),
                tables=self._tables,
                cache=self._cache,
            )
        finally:  # a cancelled draft took too long as well
            seconds = time.perf_counter() - start
            if not request.sharp:
                self.sizer.record(seconds, max(width, height))
        return RenderedFrame(to_rgb(pixels[0], viewport), view, request.sharp, seconds)

    def _size(self, request: FrameRequest) -> tuple[int, int]:
        """Width and height to render."""
        viewport = request.viewport
        longest = max(viewport.width, viewport.height)
        side = request.side if request.sharp else self.sizer.side(longest)
        scale = min(1.0, side / longest) if side else 1.0
        return max(1, round(viewport.width * scale)), max(1, round(viewport.height * scale))


def to_rgb(pixels: Tensor, viewport: Viewport) -> Tensor:
    """Pixels [H, W, 1, 3 or 4] uint8 as [H, W, 3]; transparent ones lie over a checkerboard."""
    channels = pixels.shape[2]
    if channels == 1:
        return repeat(pixels, "h w 1 -> h w 3")
    return pixels if channels == 3 else over_checkerboard(pixels, viewport)


def over_checkerboard(pixels: Tensor, viewport: Viewport) -> Tensor:
    """Composite [H, W, 4] uint8 over a grey checkerboard, [H, W, 3]; the size of its squares follows the viewport."""
    height, width, _ = pixels.shape
    down, across = (
        torch.arange(size) * side // (size * _CHECK)
        for size, side in ((height, viewport.height), (width, viewport.width))
    )
    checks = torch.where((down[:, None] + across) % 2 == 0, *_CHECKS)[..., None]
    alpha = pixels[..., 3:].int()
    return ((pixels[..., :3].int() * alpha + checks * (255 - alpha)) // 255).byte()
