"""Projection of images to latents."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
from comfy_api.latest import io
from einops import rearrange
from torch import Tensor

from ..creps_core.latents import MAX_SEED, PROJECTION_SPACES, project, projection_estimate
from ..creps_core.rendering import FITS
from . import bridge
from .sockets import Latents, LatentSocket, Model, ModelSocket

log = logging.getLogger("CREPS")

_PREVIEW_SIDE = 256


def _search_inputs() -> list[io.Input]:
    """Advanced inputs: accuracy, candidates and starts of the search, and the mask."""
    return [
        io.Int.Input(
            "side",
            default=128,
            min=8,
            max=1024,
            step=8,
            advanced=True,
            tooltip="Longer side of the last and most accurate comparison. Twice the side takes four times "
            "the time and memory.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=io.ControlAfterGenerate.fixed,
            advanced=True,
            tooltip="The search starts from the pictures of this seed and the following ones. If it does not "
            "converge to your picture, try another.",
        ),
        io.Combo.Input(
            "fit",
            options=list(FITS),
            default="crop",
            advanced=True,
            tooltip="How the picture lies in the frame. Render the latent at the picture's size with the same "
            "fit to compare the whole picture.",
        ),
        io.Int.Input(
            "candidates",
            default=1024,
            min=1,
            max=1 << 20,
            optional=True,
            advanced=True,
            tooltip="Number of seeds whose pictures the search starts from. The picture of one of them is recognised.",
        ),
        io.Int.Input(
            "starts",
            default=4,
            min=1,
            max=64,
            optional=True,
            advanced=True,
            tooltip="Number of the best candidates to optimise.",
        ),
        LatentSocket.Input("start", optional=True, tooltip="Start from this latent instead of from candidates."),
        io.Mask.Input(
            "mask",
            optional=True,
            tooltip="Where the picture is transparent, as from Load Image: ignored in the comparison.",
        ),
    ]


class ProjectImage(io.ComfyNode):
    """An image -> the latent whose image is most like it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_ProjectImage",
            display_name="Project Image to CREPS",
            category="CREPS/project",
            description="Finds the latent whose picture is most like a given one, by gradient descent through the "
            "generator. A generator can only show what it was trained on: use a generator of faces for a face.",
            search_aliases=["creps inversion", "gan inversion", "projection", "photo to latent", "encode"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator to search in."),
                io.Image.Input("image", tooltip="The picture; those of a batch are projected one by one."),
                io.Combo.Input(
                    "space",
                    options=list(PROJECTION_SPACES),
                    default="w",
                    tooltip="w stays within the pictures of the generator, and is better to edit. ws optimises the "
                    "style of every layer separately, and comes closer to other pictures.",
                ),
                io.Int.Input("steps", default=300, min=1, max=100000, tooltip="Optimisation steps per picture."),
                *_search_inputs(),
            ],
            outputs=[
                LatentSocket.Output(display_name="latent", tooltip="A latent per picture."),
                io.Float.Output(display_name="psnr", tooltip="PSNR in decibels at this side, averaged over the batch."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        image: Tensor,
        space: str,
        steps: int,
        side: int,
        seed: int,
        fit: str,
        candidates: int = 1024,
        starts: int = 4,
        start: Latents | None = None,
        mask: Tensor | None = None,
    ) -> io.NodeOutput:
        config = model.generator.config
        preview = bridge.new_image(1, _PREVIEW_SIDE, _PREVIEW_SIDE, config.img_channels)
        bar = bridge.progress_of(preview)

        def progress(done: int, total: int, likeness: Tensor) -> None:
            scaled = F.interpolate(likeness.detach()[None], preview.shape[1:3])
            with torch.inference_mode():  # the preview is an inference tensor: ComfyUI runs nodes in this mode
                preview.copy_(rearrange(scaled, "n c h w -> n h w c"))
            bar(done, total)

        generator = bridge.on_device(model, projection_estimate(config, side))
        result = project(
            generator,
            rearrange(_with_alpha(image, mask), "n h w c -> n c h w") * 2 - 1,
            fit=fit,
            space=space,
            steps=steps,
            side=side,
            seed=seed,
            candidates=candidates,
            starts=starts,
            start=None if start is None else start.ws[0],
            progress=progress,
        )
        log.info("projected: PSNR %s dB", ", ".join(f"{psnr:.1f}" for psnr in result.psnr))
        return io.NodeOutput(result.latents, sum(result.psnr) / len(result.psnr))


def _with_alpha(image: Tensor, mask: Tensor | None) -> Tensor:
    """An IMAGE with the opacity of a MASK, scaled to its size, as fourth channel."""
    if mask is None or not mask.any():
        return image
    mask = F.interpolate(mask[:, None].to(image), image.shape[1:3], mode="bilinear")
    alpha = rearrange(1 - mask.expand(len(image), -1, -1, -1) if len(mask) == 1 else 1 - mask, "n c h w -> n h w c")
    if len(alpha) != len(image):
        raise ValueError(
            f"there are {len(image)} pictures and {len(alpha)} masks: give one mask for all, or one for each"
        )
    return torch.cat([image[..., :3].expand(-1, -1, -1, 3), alpha], -1)
