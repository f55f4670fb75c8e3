"""The interactive explorer of a generator."""

from __future__ import annotations

import json
from typing import Any

from comfy_api.latest import io

from ..common.errors import printable
from ..creps_core.explorer import Scene, Walker, read_scene
from ..creps_core.latents import Directions
from . import bridge
from .live import GENERATORS
from .sockets import DirectionsSocket, LatentSocket, Model, ModelSocket, PathSocket, SceneWidget, ViewSocket


class Explorer(io.ComfyNode):
    """Outputs the shot and the film on screen."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_Explorer",
            display_name="CREPS Explorer",
            category="CREPS",
            description="Fly through a generator, live: drag and zoom without an end, walk through its latents on a "
            "pad, keep key frames. What is on screen is what comes out, and is saved in the workflow.",
            search_aliases=["live", "interactive", "fly", "zoom", "latent pad", "key frames", "preview"],
            inputs=[
                ModelSocket.Input(
                    "model",
                    tooltip="The generator to explore. From Load CREPS Generator it is live at once; one that the "
                    "workflow makes is live after a run.",
                ),
                DirectionsSocket.Input(
                    "directions",
                    optional=True,
                    tooltip="Directions for the pad (walk: Linked), after a run.",
                ),
                SceneWidget.Input(
                    "scene",
                    optional=True,
                    socketless=True,
                    tooltip="What is shown: seed, truncation, walk, view, size, key frames.",
                ),
            ],
            outputs=[
                LatentSocket.Output(display_name="latent", tooltip="The latent on screen."),
                ViewSocket.Output(display_name="view", tooltip="The view on screen, for Render CREPS."),
                LatentSocket.Output(
                    display_name="latents",
                    tooltip="A latent per frame of the film through the key frames, for Render CREPS Path; without a "
                    "film the one on screen.",
                ),
                PathSocket.Output(
                    display_name="path", tooltip="A view per frame of the film; without a film the one on screen."
                ),
                io.Int.Output(display_name="width", tooltip="Of the final picture."),
                io.Int.Output(display_name="height", tooltip="Of the final picture."),
            ],
            is_output_node=True,  # so that it can run alone
        )

    @classmethod
    def validate_inputs(cls, scene: Any = None) -> bool | str:
        """Validate the scene before anything runs."""
        try:
            _scene(scene)
        except ValueError as error:
            return f"{error}"
        return True

    @classmethod
    def execute(cls, model: Model, directions: Directions | None = None, scene: Any = None) -> io.NodeOutput:
        parsed, walker = _scene(scene), Walker(bridge.on_device(model), directions)
        latents, path = walker.film(parsed)
        source = GENERATORS.share(model, directions)
        outputs = walker.latents(parsed.shot), parsed.shot.view, latents, path, parsed.width, parsed.height
        return io.NodeOutput(*outputs, ui={"creps_source": [source]})


def _scene(value: Any) -> Scene:
    """Read the value of the widget: an object, or JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ValueError(f"the scene is no JSON: {printable(str(error), 120)}") from None
    return read_scene({} if value is None else value)
