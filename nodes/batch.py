"""Batches of latents: select, combine, show, save and load."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import io, ui
from einops import rearrange

from ..creps_core import render
from ..creps_core.comparison import cell_boxes, contact_sheet
from ..creps_core.latents import IF_DIFFERENT, average_latents, concatenate, load_latents, save_latents, select
from ..creps_core.rendering import MAX_SUPERSAMPLE, frame_size, memory_estimate
from . import bridge
from .render import SMALLEST_TILE
from .sockets import Latents, LatentSocket, Model, ModelSocket

_MAX_BATCHES = 32


class SelectLatents(io.ComfyNode):
    """Latents of a batch, in any order."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_SelectLatents",
            display_name="Select CREPS Latents",
            category="CREPS/latents",
            description="Selects latents of a batch by index, in any order, once or several times.",
            search_aliases=["creps pick", "slice", "reorder", "reverse", "repeat", "latent from batch"],
            inputs=[
                LatentSocket.Input("latent", tooltip="The batch to select from."),
                io.String.Input(
                    "indices",
                    default=":",
                    tooltip="Indices, counted from 0, such as 0, 2, -1, 3-6. -1 is the last, 3:7 is the same as 3-6, "
                    ": is all, ::-1 all in reverse, ::2 every second.",
                ),
                io.Int.Input("repeat", default=1, min=1, max=4096, tooltip="Repetitions of the whole selection."),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="The chosen latents.")],
        )

    @classmethod
    def execute(cls, latent: Latents, indices: str, repeat: int) -> io.NodeOutput:
        return io.NodeOutput(select(latent, indices, repeat))


class CombineLatents(io.ComfyNode):
    """Batches of latents -> one batch, or their mean."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_CombineLatents",
            display_name="Combine CREPS Latents",
            category="CREPS/latents",
            description="Concatenates batches of latents, or averages all their latents into one.",
            search_aliases=["creps concatenate", "join", "batch latents", "average", "mean", "merge"],
            inputs=[
                io.Autogrow.Input(
                    "latents",
                    template=io.Autogrow.TemplatePrefix(
                        LatentSocket.Input("latent", tooltip="Latents of the same generator."),
                        prefix="latent_",
                        min=1,
                        max=_MAX_BATCHES,
                    ),
                    tooltip="Batches of latents, in order.",
                ),
                io.Combo.Input(
                    "how",
                    options=["concatenate", "average"],
                    default="concatenate",
                    tooltip="concatenate: one batch after the other. average: the mean of all latents, one latent.",
                ),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="One batch, or one latent.")],
        )

    @classmethod
    def execute(cls, latents: io.Autogrow.Type, how: str) -> io.NodeOutput:
        joined = concatenate([batch for batch in latents.values() if batch is not None])
        return io.NodeOutput(average_latents(joined) if how == "average" else joined)


class ContactSheet(io.ComfyNode):
    """Latents -> one labelled image of all of them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_ContactSheet",
            display_name="CREPS Contact Sheet",
            category="CREPS/latents",
            description="Renders a batch of latents small and arranges them on one sheet, each with its seed below. A "
            "mixing grid or a direction strip becomes a table with titles. Click a picture to choose its latent.",
            search_aliases=["grid", "overview", "seed sheet", "thumbnails", "mixing grid", "table", "choose", "pick"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that the latents belong to."),
                LatentSocket.Input("latent", tooltip="What to show."),
                io.Int.Input("side", default=160, min=16, max=4096, tooltip="Longer side of each picture in pixels."),
                io.Int.Input(
                    "columns",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Pictures per row; 0 makes the sheet about square. Ignored for a table.",
                ),
                io.Int.Input(
                    "supersample",
                    default=1,
                    min=1,
                    max=MAX_SUPERSAMPLE,
                    optional=True,
                    advanced=True,
                    tooltip="Samples per pixel and side: 2 or 3 smooth small pictures with much detail.",
                ),
                io.Int.Input(
                    "choice",
                    default=0,
                    min=0,
                    max=4095,
                    optional=True,
                    tooltip="Index of the chosen picture, from 0: click one on the sheet. If there are fewer, the "
                    "last.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="sheet", tooltip="The sheet, one picture."),
                LatentSocket.Output(display_name="chosen", tooltip="The latent of the chosen picture."),
            ],
            is_output_node=True,  # the node shows its sheet
        )

    @classmethod
    def execute(
        cls, model: Model, latent: Latents, side: int, columns: int, supersample: int = 1, choice: int = 0
    ) -> io.NodeOutput:
        config = model.generator.config
        height, width = frame_size(side, model.generator.aspect)
        image = bridge.new_image(len(latent), height, width, config.img_channels)
        bridge.back_off(
            lambda tile: render(
                bridge.on_device(model, memory_estimate(config, height, width, supersample)),
                latent.ws,
                height=height,
                width=width,
                supersample=supersample,
                tile=tile,
                progress=bridge.progress_bar(),
                out=rearrange(image, "n h w c -> n c h w"),
            ),
            smallest=SMALLEST_TILE,
            advice="Lower the side of the pictures",
        )
        sheet = contact_sheet(bridge.to_image(image), latent, columns=columns)
        (preview,) = ui.PreviewImage(sheet[None], cls=cls).as_dict()["images"]
        boxes = cell_boxes(sheet, image, latent, columns=columns)
        page = {"image": preview, "width": sheet.shape[1], "height": sheet.shape[0], "cells": boxes}
        chosen = select(latent, [min(choice, len(latent) - 1)])
        return io.NodeOutput(sheet[None].to(image), chosen, ui={"creps_sheet": [page]})


class SaveLatents(bridge.FileOutputNode):
    """Latents -> a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_SaveLatents",
            display_name="Save CREPS Latents",
            category="CREPS/latents",
            description="Writes latents to output/creps_latents as safetensors, with their seeds and the fingerprint "
            "of their generator.",
            search_aliases=["creps save latent", "export latent", "keep", "w", "ws"],
            inputs=[
                LatentSocket.Input("latent", tooltip="The latents to save."),
                io.String.Input(
                    "filename_prefix",
                    default="latents",
                    tooltip="Name of the file; a number is added. May start with folders.",
                ),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="The same latents.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, latent: Latents, filename_prefix: str) -> io.NodeOutput:
        path = bridge.new_file(bridge.LATENTS_FOLDER, filename_prefix)
        save_latents(latent, path)
        return io.NodeOutput(latent, ui=ui.PreviewText(path))


class LoadLatents(io.ComfyNode):
    """A file -> latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_LoadLatents",
            display_name="Load CREPS Latents",
            category="CREPS/latents",
            description="Reads latents that Save CREPS Latents wrote, from output/creps_latents or "
            "models/creps_latents.",
            search_aliases=["creps load latent", "import latent", "w", "ws"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that will render them."),
                io.Combo.Input(
                    "file",
                    options=folder_paths.get_filename_list(bridge.LATENTS_FOLDER),
                    tooltip="Press R to refresh the list after saving or adding a file.",
                ),
                io.Combo.Input(
                    "if_different",
                    options=list(IF_DIFFERENT),
                    default="refuse",
                    advanced=True,
                    tooltip="If the latents were made with another generator: refuse them, or adapt them if the "
                    "dimensions allow it. With a fine-tuned generator they give nearly the same pictures.",
                ),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="The latents of the file.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, model: Model | None = None, if_different: str = "refuse") -> object:
        """Changes when the file is overwritten."""
        return bridge.file_state(bridge.LATENTS_FOLDER, file), if_different

    @classmethod
    def execute(cls, model: Model, file: str, if_different: str) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise(bridge.LATENTS_FOLDER, file)
        return io.NodeOutput(load_latents(path, model.generator, if_different))
