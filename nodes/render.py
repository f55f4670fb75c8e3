"""Rendering latents at any size."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io
from einops import rearrange

from ..creps_core import render
from ..creps_core.rendering import View, full_size, memory_estimate, render_view, views_estimate
from . import bridge, inputs
from .sockets import Latents, LatentSocket, Model, ModelSocket, ViewSocket

MAX_SIDE = 16384
SMALLEST_TILE = 16


class Render(io.ComfyNode):
    """Latents -> pictures of any size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_Render",
            display_name="Render CREPS",
            category="CREPS",
            description="Renders latents at any size, natively: the picture is computed for this size, not scaled "
            "to it. Memory does not grow with the picture beyond the picture itself; but Save Image takes three times "
            "that: from 8192 a side on use Render CREPS To File.",
            search_aliases=["creps", "gan", "generate image", "picture", "any size", "high resolution", "synthesis"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that the latents were sampled for."),
                LatentSocket.Input("latent", tooltip="What to render; a batch gives a batch of pictures."),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=0,
                    max=MAX_SIDE,
                    tooltip="Width of the picture in pixels. 0: by the height and the generator's own aspect. From "
                    "8192 on use Render CREPS To File, since Save Image takes 40 bytes per pixel (11 GB at 16384 x "
                    "16384).",
                ),
                io.Int.Input(
                    "height",
                    default=1024,
                    min=0,
                    max=MAX_SIDE,
                    tooltip="Height of the picture in pixels. 0: by the width and the generator's own aspect.",
                ),
                inputs.fit(),
                inputs.supersample(),
                inputs.precision(),
                *inputs.window(),
                ViewSocket.Input(
                    "view",
                    optional=True,
                    tooltip="Where the camera looks. It takes the place of top, left, bottom and right.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip="Where the pictures of a generator with transparency are transparent; otherwise empty. "
                    "Join Image with Alpha puts both together.",
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
        height, width = full_size(height, width, model.generator.aspect)
        image = bridge.new_image(len(latent.ws), height, width, config.img_channels)
        if view is None:
            memory = memory_estimate(config, height, width, supersample)
            paint = partial(render, window=(top, left, bottom, right))
        else:
            memory = views_estimate(config, [view], height, width, supersample)
            paint = partial(render_view, view=view)
        paint = partial(paint, fit=fit, precision=precision)
        bridge.back_off(
            lambda tile: paint(
                bridge.on_device(model, memory),
                latent.ws,
                height=height,
                width=width,
                supersample=supersample,
                tile=tile,
                progress=bridge.progress_of(
                    image, lambda h, w: paint(model.generator, latent.ws[:1], height=h, width=w)
                ),
                out=rearrange(image, "n h w c -> n c h w"),
            ),
            smallest=SMALLEST_TILE,
            advice="Lower supersample or the width, or close other programs that use it",
        )
        return io.NodeOutput(*bridge.split_alpha(bridge.to_image(image)))
