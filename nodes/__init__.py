"""The nodes: `CrepsExtension.get_node_list` is the table of contents."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import bridge
from .latents import SampleLatents
from .load import LoadGenerator
from .render import Render


class CrepsExtension(ComfyExtension):
    """Registers the model folder and the nodes."""

    async def on_load(self) -> None:
        bridge.register_model_folder()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [LoadGenerator, SampleLatents, Render]
