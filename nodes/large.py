"""Pictures too large for memory: rendered straight to a file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from comfy.cli_args import args
from comfy_api.latest import io, ui
from torch import Tensor

from ..common.duration import Pace
from ..creps_core import render
from ..creps_core.rendering import BITS, FILE_FORMATS, MAX_SIDE, AreaPreview, memory_estimate, render_to_file
from . import bridge, inputs
from .sockets import Latents, LatentSocket, Model, ModelSocket

_ENDINGS = {format.name: format.ending for format in FILE_FORMATS}
_SMALLEST_TILE = 16
_UNFINISHED = ("go on", "begin anew", "clear the others")
_SAY_SECONDS = 1.0


class RenderToFile(bridge.Prefixed):
    """A latent -> a file of any size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_RenderToFile",
            display_name="Render CREPS To File",
            category="CREPS",
            description="Renders a picture of up to 131072 pixels on a side straight to a file in the output folder, "
            "natively at that size. Memory stays flat. A render that was cancelled goes on where it was when it is "
            "queued again.",
            search_aliases=["creps", "gigapixel", "huge", "poster", "large", "tiff", "pyramid", "save"],
            is_output_node=True,
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that the latent was sampled for."),
                LatentSocket.Input("latent", tooltip="What to render: one latent."),
                io.Int.Input("width", default=16384, min=1, max=MAX_SIDE, tooltip="Width of the picture in pixels."),
                io.Int.Input("height", default=16384, min=1, max=MAX_SIDE, tooltip="Height of the picture in pixels."),
                io.Combo.Input(
                    "format",
                    options=list(_ENDINGS),
                    default="png",
                    tooltip="png opens everywhere, but most programs load all of it. tiff is a tiled BigTIFF with a "
                    "pyramid, which viewers for large pictures (QuPath, vipsdisp, QGIS...) open at once; it needs the "
                    "package tifffile, which ComfyUI does not bring: where it is missing, the error says the command "
                    "that installs it.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="CREPS/large",
                    tooltip="Name of the file in the output folder, with the same %tokens% as in Save Image.",
                ),
                inputs.fit(),
                inputs.supersample(),
                inputs.precision(),
                *inputs.window(),
                io.Combo.Input(
                    "bits",
                    options=[str(bits) for bits in BITS],
                    default="8",
                    optional=True,
                    advanced=True,
                    tooltip="Per colour. 16 is for grading; files become more than twice as large.",
                ),
                io.Combo.Input(
                    "unfinished",
                    options=list(_UNFINISHED),
                    default=_UNFINISHED[0],
                    optional=True,
                    advanced=True,
                    tooltip="What to do about renders that were stopped. go on: this picture is gone on with, whatever "
                    "its file is called; others in the folder are kept, and listed on the node. begin anew: what "
                    "there is of this picture is dropped. clear the others: as go on, and all others are removed.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="preview", tooltip="The picture reduced to at most 1024 pixels a side."),
                io.String.Output(display_name="path", tooltip="Where the file is."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        latent: Latents,
        width: int,
        height: int,
        format: str,
        filename_prefix: str,
        fit: str,
        supersample: int,
        precision: str = "auto",
        top: float = 0.0,
        left: float = 0.0,
        bottom: float = 1.0,
        right: float = 1.0,
        bits: str = "8",
        unfinished: str = _UNFINISHED[0],
    ) -> io.NodeOutput:
        config = model.generator.config
        if len(latent) != 1:
            raise ValueError(
                f"pick one latent with Select CREPS Latents (indices 0 to {len(latent) - 1}): a file holds one "
                f"picture, and {len(latent)} latents were given"
            )
        folder, name, counter = bridge.output_place(bridge.checked_prefix(filename_prefix), width, height)
        path = os.path.join(folder, f"{name}_{counter:05}_{_ENDINGS[format]}")
        preview = AreaPreview(height, width, config.img_channels)
        window = (top, left, bottom, right)

        def draw(height: int, width: int) -> Tensor:
            generator = bridge.on_device(model)
            return render(generator, latent.ws, height=height, width=width, window=window, fit=fit)

        progress = _progress(bridge.progress_of(preview.image[None], draw, max(height, width)), preview, path)
        memory = memory_estimate(config, height, width, supersample)
        file = bridge.back_off(
            lambda tile: render_to_file(
                bridge.on_device(model, memory),
                latent.ws,
                path,
                height=height,
                width=width,
                window=window,
                fit=fit,
                supersample=supersample,
                precision=precision,
                tile=tile,
                bits=int(bits),
                text=_metadata(cls),
                resume=unfinished != _UNFINISHED[1],
                clear_others=unfinished == _UNFINISHED[2],
                progress=progress,
                preview=preview,
            ),
            smallest=_SMALLEST_TILE,
            advice="Lower supersample or the width, or close other programs that use it",
        )
        image = bridge.new_image(1, *preview.image.shape)
        image[0] = preview.image
        image = bridge.to_image(image)
        lines = [f"{path}, {file.size / 1e6:.1f} MB"]
        if file.resumed_row:
            lines.append(f"gone on with from row {file.resumed_row} of {height}")
        kept = "removed" if unfinished == _UNFINISHED[2] else "unfinished beside it"
        lines += [f"{kept}: {left}" for left in file.others]
        bridge.say("\n".join(lines))  # stays on the node; the page shows the same of `ui` for no node but its own
        shown = ui.PreviewImage(image, cls=cls).as_dict()
        return io.NodeOutput(image, path, ui={**shown, "text": ("\n".join(lines),)})


def _progress(move: Callable[[int, int], None], preview: AreaPreview, path: str) -> Callable[[int, int], None]:
    """Calls `move`, and says how long is left, and how large the file is."""
    pace, said = Pace(), 0.0

    def progress(done: int, total: int) -> None:
        nonlocal said
        move(done, total)
        left = pace.at(done, total)
        if time.monotonic() - said > _SAY_SECONDS:
            said = time.monotonic()
            bridge.say(f"{left} left, {preview.size / 1e6:.1f} MB so far: {path}")

    return progress


def _metadata(node: type[io.ComfyNode]) -> dict[str, str]:
    """The prompt and the workflow, as in the files of Save Image."""
    if args.disable_metadata or not node.hidden:
        return {}
    values = {"prompt": node.hidden.prompt, **(node.hidden.extra_pnginfo or {})}
    return {key: json.dumps(value) for key, value in values.items() if value}
