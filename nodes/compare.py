"""Comparison of native rendering with upscaling, and scale consistency, in numbers."""

from __future__ import annotations

import re
from functools import partial

import torch
from comfy_api.latest import io
from torch import Tensor

from ..creps_core.comparison import MAX_REGIONS, compare, consistency_report, scale_consistency, sizes_up_to
from ..creps_core.rendering import View, memory_estimate, render_view, views_estimate
from . import bridge, inputs
from .render import MAX_IMAGE_SIDE, render_image_batch
from .sockets import Latents, LatentSocket, Model, ModelSocket, ViewSocket

_MOST_IMAGES = 8


class RenderForUpscaling(io.ComfyNode):
    """A small image whose pixels cover the same area as those of the large one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_RenderForUpscaling",
            display_name="Render CREPS for Upscaling",
            category="CREPS/compare",
            description="Renders a small picture whose pixels cover the same area as those of the large one: scaled up "
            "by any tool, it lies exactly on the native rendering. It is the input of upscalers to compare.",
            search_aliases=["creps small", "downscale", "low resolution", "upscale comparison"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that the latents were sampled for."),
                LatentSocket.Input("latent", tooltip="What to render; a batch gives a batch of pictures."),
                io.Int.Input(
                    "width",
                    default=1024,
                    min=1,
                    max=MAX_IMAGE_SIDE,
                    tooltip="Width of the large picture, as in its render.",
                ),
                io.Int.Input(
                    "height",
                    default=1024,
                    min=1,
                    max=MAX_IMAGE_SIDE,
                    tooltip="Height of the large picture, as in its render.",
                ),
                io.Int.Input(
                    "factor",
                    default=4,
                    min=1,
                    max=64,
                    tooltip="Ratio of the large size to the small size.",
                ),
                inputs.fit(
                    tooltip="As in the render of the large picture.",
                ),
                inputs.supersample(
                    default=4,
                    tooltip="Samples per pixel and side. A small picture with one sample per pixel has jagged edges "
                    "that no upscaler can repair; 4 makes the comparison fair.",
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
        view = view or View()
        small = {"height": max(1, round(height / factor)), "width": max(1, round(width / factor))}
        options = {"view": view, "of": (height, width), "fit": fit, "supersample": supersample, "precision": precision}
        image = render_image_batch(
            model,
            (len(latent.ws), small["height"], small["width"]),
            views_estimate(model.generator.config, [view], **small, supersample=supersample),
            partial(render_view, ws=latent.ws, **small, **options),
            lambda h, w: render_view(model.generator, latent.ws[:1], view, height=h, width=w, fit=fit),
        )
        return io.NodeOutput(image)


class CompareUpscaling(io.ComfyNode):
    """A comparison as a sheet and a table."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_CompareUpscaling",
            display_name="Compare CREPS with Upscaling",
            category="CREPS/compare",
            description="Compares a native rendering with pictures that were rendered small and scaled up: whole, "
            "enlarged where they differ most, and as difference maps; with PSNR, SSIM and power spectra.",
            search_aliases=["creps compare", "psnr", "ssim", "upscale comparison", "difference", "spectrum", "sheet"],
            inputs=[
                io.Image.Input("native", tooltip="The picture rendered at the large size."),
                io.Autogrow.Input(
                    "images",
                    template=io.Autogrow.TemplatePrefix(
                        io.Image.Input(
                            "image",
                            tooltip="A picture scaled up by any tool. Other sizes are scaled to the native size by "
                            "Lanczos.",
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
                    tooltip="Names of the images in order, one per line. By default image 1, image 2...",
                ),
                io.Int.Input(
                    "places",
                    default=3,
                    min=0,
                    max=MAX_REGIONS,
                    tooltip="How many regions to show enlarged; chosen where the pictures differ most.",
                ),
                io.Int.Input("zoom", default=4, min=1, max=32, tooltip="Enlargement of these regions."),
                io.String.Input(
                    "by_hand",
                    default="",
                    multiline=True,
                    optional=True,
                    advanced=True,
                    tooltip="Regions of your choice instead: x and y of the centre, 0 to 1 across the picture, one "
                    "region per line, such as 0.4 0.55",
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
    """Scale consistency: whether the image is the same at every size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_ScaleConsistency",
            display_name="CREPS Scale Consistency",
            category="CREPS/compare",
            description="Renders latents at sizes n and 2n - 1, which have every second pixel in common, and measures "
            "how much those differ: whether the picture is the same at every size.",
            search_aliases=["creps check", "any scale", "psnr", "aliasing"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that the latents were sampled for."),
                LatentSocket.Input("latent", tooltip="What to render; the worst latent of a batch counts."),
                io.Int.Input("smallest", default=32, min=2, max=4096, tooltip="The first size in pixels per side."),
                io.Int.Input(
                    "largest",
                    default=512,
                    min=3,
                    max=8192,
                    tooltip="Sizes are doubled (2n - 1) up to at most this one.",
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
            raise ValueError(f"by_hand: a region is x and y from 0 to 1, such as 0.4 0.55, not {line!r}") from None
        centres.append((y, x))
    return centres
