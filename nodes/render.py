"""Rendering latents at any size."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from comfy_api.latest import io
from einops import rearrange
from torch import Tensor

from ..creps_core import render
from ..creps_core.rendering import View, full_size, memory_estimate, render_view, views_estimate
from . import bridge, inputs, previews
from .sockets import Latents, LatentSocket, Model, ModelSocket, ViewSocket

log = logging.getLogger("CREPS")

MAX_IMAGE_SIDE = 16384
"""Largest height or width of an IMAGE in pixels."""
SMALLEST_TILE = 16
MEMORY_ADVICE = "Lower supersample or the width, or close other programs that use it"


def warn_of_odd_sides(count: int, height: int, width: int) -> None:
    """Say before frames are rendered that Save Video refuses odd sizes."""
    if count > 1 and (height % 2 or width % 2):
        log.warning(
            "make the width and the height even if this is to be a video: it has %d frames of %d x %d, and Save Video "
            "fails with odd sizes. Stop the run to change them",
            count,
            width,
            height,
        )


def render_image_batch(
    model: Model,
    size: tuple[int, int, int],
    memory: int,
    paint: Callable[..., object],
    draw: previews.DrawDraft | None = None,
) -> Tensor:
    """Render a batch of images with progress and previews, and with smaller tiles if the device runs out of memory.

    Args:
        model: the generator.
        size: (count, height, width) of the images.
        memory: bytes that rendering takes on the device.
        paint: called as `paint(generator, tile=..., progress=..., out=...)`, such as a partial of `render`.
        draw: renders a draft for the preview.

    Returns:
        [count, height, width, C] in 0..1, an IMAGE that may have a fourth channel.
    """
    warn_of_odd_sides(*size)
    image = bridge.new_image(*size, model.generator.config.img_channels)
    bridge.back_off(
        lambda tile: paint(
            bridge.on_device(model, memory),
            tile=tile,
            progress=bridge.progress_of(image, draw),
            out=rearrange(image, "n h w c -> n c h w"),
        ),
        smallest=SMALLEST_TILE,
        advice=MEMORY_ADVICE,
    )
    return bridge.to_image(image)


class Render(io.ComfyNode):
    """Latents -> images of any size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_Render",
            display_name="Render CREPS",
            category="CREPS",
            description="Renders latents at any size, natively: the picture is computed at this size, not scaled to "
            "it. Rendering needs little memory beyond the picture itself; but Save Image takes three times that, so "
            "use Render CREPS To File from 8192 pixels a side.",
            search_aliases=["creps", "gan", "generate image", "picture", "any size", "high resolution", "synthesis"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that the latents were sampled for."),
                LatentSocket.Input("latent", tooltip="What to render; a batch gives a batch of pictures."),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=0,
                    max=MAX_IMAGE_SIDE,
                    tooltip="Width of the picture in pixels. 0: from the height and the generator's aspect. From 8192 "
                    "use Render CREPS To File, since Save Image takes 40 bytes per pixel (11 GB at 16384 x 16384).",
                ),
                io.Int.Input(
                    "height",
                    default=1024,
                    min=0,
                    max=MAX_IMAGE_SIDE,
                    tooltip="Height of the picture in pixels. 0: from the width and the generator's aspect.",
                ),
                inputs.fit(),
                inputs.supersample(),
                inputs.precision(),
                *inputs.window(),
                ViewSocket.Input(
                    "view",
                    optional=True,
                    tooltip="The camera's view. It replaces top, left, bottom and right.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="The transparency of the pictures, for a generator that has it; otherwise empty. Join "
                    "Image with Alpha combines both.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        latent: Latents,
        width: int,
        height: int,
        fit: str,
        supersample: int,
        precision: str = "auto",
        top: float = 0.0,
        left: float = 0.0,
        bottom: float = 1.0,
        right: float = 1.0,
        view: View | None = None,
    ) -> io.NodeOutput:
        config = model.generator.config
        height, width = full_size(height, width, model.generator.aspect, even=len(latent.ws) > 1)
        if view is None:
            memory = memory_estimate(config, height, width, supersample)
            paint = partial(render, window=(top, left, bottom, right))
        else:
            memory = views_estimate(config, [view], height, width, supersample)
            paint = partial(render_view, view=view)
        paint = partial(paint, fit=fit, precision=precision)
        image = render_image_batch(
            model,
            (len(latent.ws), height, width),
            memory,
            partial(paint, ws=latent.ws, height=height, width=width, supersample=supersample),
            lambda h, w: paint(model.generator, ws=latent.ws[:1], height=h, width=w),
        )
        return io.NodeOutput(*bridge.split_alpha(image))
