"""Favourites: latents saved under a name, with a thumbnail."""

from __future__ import annotations

import os
import re

import folder_paths
from comfy_api.latest import io
from einops import rearrange

from ..common.files import write_png
from ..creps_core import render
from ..creps_core.latents import IF_DIFFERENT, Latents, load_latents, save_latents
from ..creps_core.rendering import frame_size, memory_estimate
from . import bridge
from .sockets import LatentSocket, Model, ModelSocket

FOLDER = "favourites"
_ENDING = ".safetensors"
_MAX_NAME = 80  # letters
_THUMBNAIL_SIDE = 256


def names() -> list[str]:
    """Names of all favourites."""
    files = [file.replace(os.sep, "/") for file in folder_paths.get_filename_list(bridge.LATENTS_FOLDER)]
    start = f"{FOLDER}/"
    return [file[len(start) : -len(_ENDING)] for file in files if file.startswith(start) and file.endswith(_ENDING)]


def checked_name(name: str) -> str:
    """The name, stripped.

    Raises:
        ValueError: it cannot be the name of a file.
    """
    name = name.strip()
    if not 0 < len(name) <= _MAX_NAME or name[0] == "." or name[-1] == "." or re.search(r'[/\\:*?"<>|\x00-\x1f]', name):
        raise ValueError(
            f'write a name of 1 to {_MAX_NAME} letters without / \\ : * ? " < > | and no dot at its ends, such as '
            f"evening lake, in name: {name[:_MAX_NAME]!r} is not such a name"
        )
    return name


class SaveFavourite(io.ComfyNode):
    """Latents -> a favourite."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_SaveFavourite",
            display_name="Save CREPS Favourite",
            category="CREPS/latents",
            description="Saves latents under a name of your choice, with a thumbnail. Load CREPS Favourite lists them.",
            search_aliases=["favorite", "bookmark", "keep", "like", "save latent"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that renders the thumbnail."),
                LatentSocket.Input("latent", tooltip="The latents to save; the thumbnail shows the first."),
                io.String.Input("name", default="my favourite", tooltip="Its name, such as evening lake."),
                io.Boolean.Input(
                    "replace",
                    default=False,
                    tooltip="Replace a favourite of the same name. If off, a different latent is refused.",
                ),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="The same latents.")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        """Validate the name before anything runs."""
        try:
            return bool(name is None or checked_name(name))
        except ValueError as error:
            return str(error)

    @classmethod
    def execute(cls, model: Model, latent: Latents, name: str, replace: bool) -> io.NodeOutput:
        folder = os.path.join(folder_paths.get_output_directory(), bridge.LATENTS_FOLDER, FOLDER)
        path = os.path.join(folder, checked_name(name))
        if os.path.exists(path + _ENDING) and not replace:
            existing = load_latents(path + _ENDING).ws
            if existing.shape != latent.ws.shape or not existing.equal(latent.ws.cpu()):
                raise ValueError(
                    f"choose another name, or switch on replace: there is a favourite {name.strip()!r} already"
                )
        os.makedirs(folder, exist_ok=True)
        height, width = frame_size(_THUMBNAIL_SIDE, model.generator.aspect)
        generator = bridge.on_device(model, memory_estimate(model.generator.config, height, width))
        picture = render(generator, latent.ws[:1], height=height, width=width, supersample=2).cpu()
        thumbnail, _ = bridge.split_alpha(bridge.to_image(rearrange(picture, "n c h w -> n h w c").contiguous()))
        save_latents(latent, path + _ENDING)
        write_png(path + ".png", (thumbnail[0] * 255).round().byte().numpy())
        file = {
            "filename": os.path.basename(path) + ".png",
            "subfolder": f"{bridge.LATENTS_FOLDER}/{FOLDER}",
            "type": "output",
        }
        return io.NodeOutput(latent, ui={"images": [file]})


class LoadFavourite(io.ComfyNode):
    """A favourite -> latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_LoadFavourite",
            display_name="Load CREPS Favourite",
            category="CREPS/latents",
            description="Loads latents that Save CREPS Favourite saved, by name. The node shows their thumbnail.",
            search_aliases=["favorite", "bookmark", "kept", "load latent"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that will render them."),
                io.Combo.Input(
                    "name", options=names(), tooltip="Press R to refresh the list after saving a favourite."
                ),
                io.Combo.Input(
                    "if_different",
                    options=list(IF_DIFFERENT),
                    default="refuse",
                    optional=True,
                    advanced=True,
                    tooltip="If the latents were made with another generator: refuse them, or adapt them if the "
                    "dimensions allow it. With a fine-tuned generator they give nearly the same pictures.",
                ),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="The latents of this name.")],
        )

    @classmethod
    def fingerprint_inputs(cls, name: str, model: Model | None = None, if_different: str = "refuse") -> object:
        """Changes when the favourite is replaced."""
        return bridge.file_state(bridge.LATENTS_FOLDER, f"{FOLDER}/{name}{_ENDING}"), if_different

    @classmethod
    def execute(cls, model: Model, name: str, if_different: str = "refuse") -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise(bridge.LATENTS_FOLDER, f"{FOLDER}/{name}{_ENDING}")
        return io.NodeOutput(load_latents(path, model.generator, if_different))
