"""Images too large for memory, rendered straight to a file."""

from __future__ import annotations

import json
import os
import time

from comfy.cli_args import args
from comfy_api.latest import io, ui
from torch import Tensor

from ..common.duration import Pace
from ..common.progress import Progress
from ..creps_core import render
from ..creps_core.rendering import (
    BITS,
    FILE_FORMATS,
    MAX_SIDE,
    AreaPreview,
    RenderedFile,
    memory_estimate,
    render_to_file,
)
from . import bridge, inputs
from .render import MEMORY_ADVICE, SMALLEST_TILE
from .sockets import Latents, LatentSocket, Model, ModelSocket

_ENDINGS = {format.name: format.ending for format in FILE_FORMATS}
_RESUME, _RESTART, _CLEAR = "go on", "begin anew", "clear the others"
_STATUS_SECONDS = 1.0


class RenderToFile(bridge.FileOutputNode):
    """A latent -> a file of any size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_RenderToFile",
            display_name="Render CREPS To File",
            category="CREPS",
            description="Renders a picture of up to 131072 pixels on a side straight to a file in the output folder, "
            "natively at that size, with constant memory. A render that was cancelled resumes when it is queued again.",
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
                    "package tifffile, which is not part of ComfyUI: if it is missing, the error gives the command "
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
                    tooltip="Bits per channel. 16 is for grading; files are more than twice as large.",
                ),
                io.Combo.Input(
                    "unfinished",
                    options=[_RESUME, _RESTART, _CLEAR],
                    default=_RESUME,
                    optional=True,
                    advanced=True,
                    tooltip="What to do with renders that were stopped. go on: resume this picture, whatever the name "
                    "of its file; unfinished renders of other pictures in the folder are kept, and listed on the "
                    "node. begin anew: discard what there is of this picture. clear the others: as go on, and remove "
                    "those of other pictures.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="preview", tooltip="The picture, reduced to at most 1024 pixels a side."),
                io.String.Output(display_name="path", tooltip="The path of the file."),
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
        unfinished: str = _RESUME,
    ) -> io.NodeOutput:
        config = model.generator.config
        if len(latent) != 1:
            raise ValueError(
                f"pick one latent with Select CREPS Latents (indices 0 to {len(latent) - 1}): a file holds one "
                f"picture, and {len(latent)} latents were given"
            )
        folder, name, counter = bridge.next_output(bridge.checked_prefix(filename_prefix), width, height)
        path = os.path.join(folder, f"{name}_{counter:05}_{_ENDINGS[format]}")
        preview = AreaPreview(height, width, config.img_channels)
        window = {"window": (top, left, bottom, right), "fit": fit}

        def draw(height: int, width: int) -> Tensor:
            return render(bridge.on_device(model), latent.ws, height=height, width=width, **window)

        progress = _progress(bridge.progress_of(preview.image[None], draw, max(height, width)), preview, path)
        memory = memory_estimate(config, height, width, supersample)
        options = {"height": height, "width": width, "supersample": supersample, "precision": precision, **window}
        options |= {"bits": int(bits), "text": _metadata(cls), "progress": progress, "preview": preview}
        options |= {"resume": unfinished != _RESTART, "clear_others": unfinished == _CLEAR}
        file = bridge.back_off(
            lambda tile: render_to_file(bridge.on_device(model, memory), latent.ws, path, tile=tile, **options),
            smallest=SMALLEST_TILE,
            advice=MEMORY_ADVICE,
        )
        return _output(cls, file, height, unfinished == _CLEAR)


def _output(node: type[io.ComfyNode], file: RenderedFile, height: int, cleared: bool) -> io.NodeOutput:
    """The outputs of the node; the file, and other partial renders in its folder, are also shown on the node."""
    image = bridge.new_image(1, *file.preview.shape)
    image[0] = file.preview
    image = bridge.to_image(image)
    lines = [f"{file.path}, {file.size / 1e6:.1f} MB"]
    if file.resumed_row:
        lines.append(f"resumed from row {file.resumed_row} of {height}")
    lines += [f"{'removed' if cleared else 'unfinished beside it'}: {other}" for other in file.others]
    text = "\n".join(lines)
    bridge.show_status(text)  # stays on the node: the page shows the text of `ui` on few nodes only
    preview = ui.PreviewImage(image, cls=node).as_dict()
    return io.NodeOutput(image, str(file.path), ui={**preview, "text": (text,)})


def _progress(move: Progress, preview: AreaPreview, path: str) -> Progress:
    """A progress callback that calls `move`, and shows the time left and the size of the file on the node."""
    pace, last = Pace(), 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last
        move(done, total)
        left = pace.at(done, total)
        if time.monotonic() - last > _STATUS_SECONDS:
            last = time.monotonic()
            bridge.show_status(f"{left} left, {preview.size / 1e6:.1f} MB so far: {path}")

    return progress


def _metadata(node: type[io.ComfyNode]) -> dict[str, str]:
    """The prompt and the workflow, stored as Save Image does."""
    if args.disable_metadata or not node.hidden:
        return {}
    values = {"prompt": node.hidden.prompt, **(node.hidden.extra_pnginfo or {})}
    return {key: json.dumps(value) for key, value in values.items() if value}
