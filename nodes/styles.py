"""Changing latents: style mixing, and directions found without labels."""

from __future__ import annotations

import folder_paths
from comfy_api.latest import io, ui

from ..creps_core.latents import (
    DIRECTION_METHODS,
    IF_DIFFERENT,
    MAX_SEED,
    Directions,
    direction_strip,
    edit,
    find_directions,
    load_directions,
    mix_grid,
    mix_pairs,
    save_directions,
)
from . import bridge
from .sockets import DirectionsSocket, Latents, LatentSocket, Model, ModelSocket

_LAYERS = (
    "coarse, middle, fine (a third of the styles each), all, or numbers such as 0-3, 6 (0:4 is 0-3); -1 is the last, "
    "which colours"
)


class MixStyles(io.ComfyNode):
    """Forms of one latent, details and colours of another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_MixStyles",
            display_name="Mix CREPS Styles",
            category="CREPS/latents",
            description="Takes some styles of a latent from another one: the forms of the one with the details or the "
            "colours of the other. As a grid: every latent of the one batch with every one of the other.",
            search_aliases=["creps style mixing", "crossover", "mixing grid", "combine", "layers"],
            inputs=[
                LatentSocket.Input("latent_a", tooltip="What to start from; the rows of a grid."),
                LatentSocket.Input("latent_b", tooltip="Where the chosen styles come from; the columns of a grid."),
                io.String.Input("layers", default="fine", tooltip=f"Styles to take from b: {_LAYERS}."),
                io.Combo.Input(
                    "arrange",
                    options=["grid", "pairs"],
                    default="grid",
                    tooltip="grid: every latent of a with every one of b, a table for the contact sheet. pairs: the "
                    "first with the first, and so on; a single one goes with all.",
                ),
                io.Float.Input(
                    "amount",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="1 takes the styles of b, 0 keeps those of a, between them a blend.",
                ),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="The mixed latents, row by row.")],
        )

    @classmethod
    def execute(cls, latent_a: Latents, latent_b: Latents, layers: str, arrange: str, amount: float) -> io.NodeOutput:
        mix = mix_grid if arrange == "grid" else mix_pairs
        return io.NodeOutput(mix(latent_a, latent_b, layers, amount))


class FindDirections(io.ComfyNode):
    """A generator -> ways to change its pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_FindDirections",
            display_name="Find CREPS Directions",
            category="CREPS/latents",
            description="Finds directions along which a generator's pictures change most, without labels or training, "
            "in seconds. What each one does is for you to see: use CREPS Direction Strip.",
            search_aliases=["creps directions", "sefa", "ganspace", "pca", "semantic", "edit", "controls"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator to look into."),
                io.Combo.Input(
                    "method",
                    options=list(DIRECTION_METHODS),
                    default="SeFa",
                    tooltip="SeFa: what its weights react to most, for the chosen styles. PCA (GANSpace): along what "
                    "its own latents vary most. Named: those that a generator knows by a name, such as the built-in "
                    "alpenglow.",
                ),
                io.String.Input("layers", default="all", tooltip=f"Styles to look at and to change: {_LAYERS}."),
                io.Int.Input("count", default=10, min=1, max=512, tooltip="How many directions, the strongest first."),
                io.Int.Input(
                    "samples",
                    default=4096,
                    min=16,
                    max=1 << 20,
                    optional=True,
                    advanced=True,
                    tooltip="Random latents from which PCA and the size of a step are computed.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    optional=True,
                    advanced=True,
                    tooltip="Of these random latents.",
                ),
            ],
            outputs=[DirectionsSocket.Output(display_name="directions", tooltip="The directions.")],
        )

    @classmethod
    def execute(
        cls, model: Model, method: str, layers: str, count: int, samples: int = 4096, seed: int = 0
    ) -> io.NodeOutput:
        options = {"layers": layers, "count": count, "samples": samples, "seed": seed}
        return io.NodeOutput(find_directions(bridge.on_device(model), method, **options))


class EditLatents(io.ComfyNode):
    """Latents -> changed along a direction."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_EditLatents",
            display_name="Edit CREPS Latents",
            category="CREPS/latents",
            description="Moves latents along a direction. Chain several for several directions.",
            search_aliases=["creps edit", "apply direction", "slider", "semantic edit", "strength"],
            inputs=[
                LatentSocket.Input("latent", tooltip="The latents to change."),
                DirectionsSocket.Input("directions", tooltip="Directions of the same generator."),
                io.Int.Input("index", default=0, min=0, max=511, tooltip="Which direction, counted from 0."),
                io.Float.Input(
                    "strength",
                    default=1.5,
                    min=-100.0,
                    max=100.0,
                    step=0.1,
                    tooltip="How far: 1 is a usual deviation of the generator's latents, 3 is far.",
                ),
                io.String.Input(
                    "layers",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip=f"Styles to change; empty: those that the directions were found for. {_LAYERS}.",
                ),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="The changed latents.")],
        )

    @classmethod
    def execute(
        cls, latent: Latents, directions: Directions, index: int, strength: float, layers: str = ""
    ) -> io.NodeOutput:
        return io.NodeOutput(edit(latent, directions, {index: strength}, layers))


class DirectionStrip(io.ComfyNode):
    """What directions do, as a table for the contact sheet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_DirectionStrip",
            display_name="CREPS Direction Strip",
            category="CREPS/latents",
            description="Shows what directions do to a latent: a row per direction, from one side to the other. Give "
            "it to CREPS Contact Sheet.",
            search_aliases=["creps direction grid", "sefa strip", "explore directions", "traversal"],
            inputs=[
                LatentSocket.Input("latent", tooltip="What to change; several latents give rows each."),
                DirectionsSocket.Input("directions", tooltip="Directions of the same generator."),
                io.String.Input(
                    "indices",
                    default="0:5",
                    tooltip="Which directions, counted from 0, such as 0, 2, 5-7 (5:8 is the same). : is all.",
                ),
                io.Float.Input(
                    "reach", default=3.0, min=0.1, max=100.0, step=0.1, tooltip="From minus this strength to plus this."
                ),
                io.Int.Input("columns", default=7, min=2, max=64, tooltip="Pictures per direction; odd shows 0 too."),
                io.String.Input(
                    "layers",
                    default="",
                    optional=True,
                    advanced=True,
                    tooltip=f"Styles to change; empty: those that the directions were found for. {_LAYERS}.",
                ),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="The changed latents, row by row.")],
        )

    @classmethod
    def execute(
        cls, latent: Latents, directions: Directions, indices: str, reach: float, columns: int, layers: str = ""
    ) -> io.NodeOutput:
        return io.NodeOutput(direction_strip(latent, directions, indices, reach=reach, columns=columns, layers=layers))


class SaveDirections(bridge.Prefixed):
    """Directions -> a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_SaveDirections",
            display_name="Save CREPS Directions",
            category="CREPS/latents",
            description="Writes directions to output/creps_directions as safetensors, with the fingerprint of their "
            "generator.",
            search_aliases=["creps save directions", "export directions"],
            inputs=[
                DirectionsSocket.Input("directions", tooltip="The directions to keep."),
                io.String.Input(
                    "filename_prefix",
                    default="directions",
                    tooltip="Name of the file; a number is added. May begin with folders.",
                ),
            ],
            outputs=[DirectionsSocket.Output(display_name="directions", tooltip="The same directions.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, directions: Directions, filename_prefix: str) -> io.NodeOutput:
        path = bridge.new_file(bridge.DIRECTIONS_FOLDER, filename_prefix)
        save_directions(directions, path)
        return io.NodeOutput(directions, ui=ui.PreviewText(path))


class LoadDirections(io.ComfyNode):
    """A file -> directions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_LoadDirections",
            display_name="Load CREPS Directions",
            category="CREPS/latents",
            description="Reads directions that Save CREPS Directions wrote, from output/creps_directions or "
            "models/creps_directions.",
            search_aliases=["creps load directions", "import directions"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that they are for."),
                io.Combo.Input(
                    "file",
                    options=folder_paths.get_filename_list(bridge.DIRECTIONS_FOLDER),
                    tooltip="After saving or adding a file press R to refresh the list.",
                ),
                io.Combo.Input(
                    "if_different",
                    options=list(IF_DIFFERENT),
                    default="refuse",
                    advanced=True,
                    tooltip="When the directions were found in another generator: refuse them, or adapt them where the "
                    "dimensions allow. In a fine-tuned generator they do nearly the same.",
                ),
            ],
            outputs=[DirectionsSocket.Output(display_name="directions", tooltip="The directions of the file.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, model: Model | None = None, if_different: str = "refuse") -> object:
        """An overwritten file is loaded anew."""
        return bridge.file_state(bridge.DIRECTIONS_FOLDER, file), if_different

    @classmethod
    def execute(cls, model: Model, file: str, if_different: str) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise(bridge.DIRECTIONS_FOLDER, file)
        return io.NodeOutput(load_directions(path, model.generator, if_different))
