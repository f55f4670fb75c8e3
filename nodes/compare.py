"""Native rendering against upscaling, and the same picture at every size: with numbers."""

from __future__ import annotations

import re

import torch
from comfy_api.latest import io
from einops import rearrange
from torch import Tensor

from ..creps_core.comparison import MAX_REGIONS, compare, consistency_report, scale_consistency, sizes_up_to
from ..creps_core.rendering import View, memory_estimate, render_view, views_estimate
from . import bridge, inputs
from .render import MAX_SIDE, SMALLEST_TILE
from .sockets import Latents, LatentSocket, Model, ModelSocket, ViewSocket

_MOST_IMAGES = 8


class RenderForUpscaling(io.ComfyNode):
    """A small picture that an upscaler can bring to exactly the place of the large one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_RenderForUpscaling",
            display_name="Render CREPS for Upscaling",
            category="CREPS/compare",
            description="Renders a small picture whose pixels cover the same area as those of the large one: scaled up "
            "by any tool it lies exactly on the native rendering. What upscalers are to be compared with.",
            search_aliases=["creps small", "downscale", "low resolution", "upscale comparison"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that the latents were sampled for."),
                LatentSocket.Input("latent", tooltip="What to render; a batch gives a batch of pictures."),
                io.Int.Input(
                    "width", default=1024, min=1, max=MAX_SIDE, tooltip="Width of the large picture, as in its render."
                ),
                io.Int.Input(
                    "height",
                    default=1024,
                    min=1,
                    max=MAX_SIDE,
                    tooltip="Height of the large picture, as in its render.",
                ),
                io.Int.Input(
                    "factor",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="How many times smaller this picture is than the large one.",
                ),
                inputs.fit(
                    tooltip="As in the render of the large picture.",
                ),
                inputs.supersample(
                    default=4,
                    tooltip="Samples per pixel and side. A small picture with one sample per pixel has jagged edges "
                    "that no upscaler can mend; 4 gives it a fair start.",
                ),
                inputs.precision(),
                ViewSocket.Input("view", optional=True, tooltip="As in the render of the large picture."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The small pictures, for an upscaler.")],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        latent: Latents,
        width: int,
        height: int,
        factor: int,
        fit: str,
        supersample: int,
        precision: str = "auto",
        view: View | None = None,
    ) -> io.NodeOutput:
        config, view = model.generator.config, view or View()
        small = max(1, round(height / factor)), max(1, round(width / factor))
        image = bridge.new_image(len(latent.ws), *small, config.img_channels)
        memory = views_estimate(config, [view], *small, supersample)

        def draw(height: int, width: int) -> Tensor:
            return render_view(model.generator, latent.ws[:1], view, height=height, width=width, fit=fit)

        bridge.back_off(
            lambda tile: render_view(
                bridge.on_device(model, memory),
                latent.ws,
                view,
                height=small[0],
                width=small[1],
                of=(height, width),
                fit=fit,
                supersample=supersample,
                precision=precision,
                tile=tile,
                progress=bridge.progress_of(image, draw),
                out=rearrange(image, "n h w c -> n c h w"),
            ),
            smallest=SMALLEST_TILE,
            advice="Lower supersample or the width, or close other programs that use it",
        )
        return io.NodeOutput(bridge.to_image(image))


class CompareUpscaling(io.ComfyNode):
    """A sheet and a table."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_CompareUpscaling",
            display_name="Compare CREPS with Upscaling",
            category="CREPS/compare",
            description="Puts a native rendering beside pictures that were rendered small and scaled up: whole, "
            "enlarged where they differ most, as difference maps; with PSNR, SSIM and power spectra.",
            search_aliases=["creps compare", "psnr", "ssim", "upscale comparison", "difference", "spectrum", "sheet"],
            inputs=[
                io.Image.Input("native", tooltip="The picture rendered at the large size."),
                io.Autogrow.Input(
                    "images",
                    template=io.Autogrow.TemplatePrefix(
                        io.Image.Input(
                            "image",
                            tooltip="A picture scaled up by anything. One of another size is scaled to the native size "
                            "by Lanczos.",
                        ),
                        prefix="image_",
                        min=1,
                        max=_MOST_IMAGES,
                    ),
                    tooltip="Pictures to compare with the native one.",
                ),
                io.String.Input(
                    "names",
                    default="",
                    multiline=True,
                    tooltip="Names of the images in their order, one per line. Without a name: image 1, image 2...",
                ),
                io.Int.Input(
                    "places",
                    default=3,
                    min=0,
                    max=MAX_REGIONS,
                    tooltip="How many places to show enlarged; chosen where the pictures differ most.",
                ),
                io.Int.Input("zoom", default=4, min=1, max=32, tooltip="How many times to enlarge the places."),
                io.String.Input(
                    "by_hand",
                    default="",
                    multiline=True,
                    optional=True,
                    advanced=True,
                    tooltip="Places of your own instead: x and y of the middle, 0 to 1 across the picture, one place "
                    "per line, such as 0.4 0.55",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="The labelled comparison."),
                io.String.Output(display_name="report", tooltip="The numbers as a table."),
            ],
        )

    @classmethod
    def execute(
        cls,
        native: Tensor,
        images: io.Autogrow.Type,
        names: str,
        places: int,
        zoom: int,
        by_hand: str = "",
    ) -> io.NodeOutput:
        pictures = [image[0] for image in images.values() if image is not None]
        given = [line.strip() for line in names.splitlines() if line.strip()]
        labels = [given[i] if i < len(given) else f"image {i + 1}" for i in range(len(pictures))]
        labels = [label if label not in labels[:i] else f"{label} ({i + 1})" for i, label in enumerate(labels)]
        by_name = dict(zip(labels, pictures, strict=True))
        found = compare(native[0], by_name, regions=_centres(by_hand) or places, zoom=zoom)
        sheet = torch.from_numpy(found.sheet.copy()).unsqueeze(0)
        return io.NodeOutput(sheet.to(native.device, native.dtype) / 255, found.report)


class ScaleConsistency(io.ComfyNode):
    """Is it the same picture at every size?"""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_ScaleConsistency",
            display_name="CREPS Scale Consistency",
            category="CREPS/compare",
            description="Renders latents at sizes n and 2n - 1, which have every second pixel in common, and says how "
            "much those differ: the same picture at every size, as a number.",
            search_aliases=["creps check", "any scale", "psnr", "aliasing"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that the latents were sampled for."),
                LatentSocket.Input("latent", tooltip="What to render; of a batch the worst counts."),
                io.Int.Input("smallest", default=32, min=2, max=4096, tooltip="The first size in pixels per side."),
                io.Int.Input(
                    "largest",
                    default=512,
                    min=3,
                    max=8192,
                    tooltip="Sizes are doubled (2n - 1) up to this one at most.",
                ),
                inputs.precision(),
            ],
            outputs=[io.String.Output(display_name="report", tooltip="The numbers as a table.")],
        )

    @classmethod
    def execute(
        cls, model: Model, latent: Latents, smallest: int, largest: int, precision: str = "auto"
    ) -> io.NodeOutput:
        sizes = sizes_up_to(largest, smallest)
        config = model.generator.config
        memory = memory_estimate(config, sizes[-1], sizes[-1]) + 8 * config.img_channels * sizes[-1] ** 2
        agreements = scale_consistency(
            bridge.on_device(model, memory), latent.ws, sizes, precision=precision, progress=bridge.progress_bar()
        )
        return io.NodeOutput(consistency_report(agreements))


def _centres(text: str) -> list[tuple[float, float]]:
    """Parse lines of `x y` to (y, x).

    Raises:
        ValueError: a line is not two numbers.
    """
    centres = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        try:
            x, y = (float(word) for word in re.split(r"[\s,;]+", line))
        except ValueError:
            raise ValueError(f"by_hand: a place is x and y from 0 to 1, such as 0.4 0.55, not {line!r}") from None
        centres.append((y, x))
    return centres
