"""Editing latents: style mixing, and directions found without labels."""

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
    "which determines colours"
)


class MixStyles(io.ComfyNode):
    """Shapes of one latent, details and colours of another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_MixStyles",
            display_name="Mix CREPS Styles",
            category="CREPS/latents",
            description="Replaces some styles of a latent by those of another: the shapes of one with the details or "
            "colours of the other. As a grid: every latent of one batch with every latent of the other.",
            search_aliases=["creps style mixing", "crossover", "mixing grid", "combine", "layers"],
            inputs=[
                LatentSocket.Input("latent_a", tooltip="The latents to change; the rows of a grid."),
                LatentSocket.Input("latent_b", tooltip="The source of the chosen styles; the columns of a grid."),
                io.String.Input("layers", default="fine", tooltip=f"Styles to take from b: {_LAYERS}."),
                io.Combo.Input(
                    "arrange",
                    options=["grid", "pairs"],
                    default="grid",
                    tooltip="grid: every latent of a with every latent of b, a table for the contact sheet. pairs: "
                    "first with first, second with second; a single latent is paired with all.",
                ),
                io.Float.Input(
                    "amount",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="1 takes the styles of b, 0 keeps those of a; values between interpolate.",
                ),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="The mixed latents, row by row.")],
        )

    @classmethod
    def execute(cls, latent_a: Latents, latent_b: Latents, layers: str, arrange: str, amount: float) -> io.NodeOutput:
        mix = mix_grid if arrange == "grid" else mix_pairs
        return io.NodeOutput(mix(latent_a, latent_b, layers, amount))


class FindDirections(io.ComfyNode):
    """A generator -> directions that change its images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_FindDirections",
            display_name="Find CREPS Directions",
            category="CREPS/latents",
            description="Finds directions along which a generator's pictures change most, without labels or training, "
            "in seconds. Use CREPS Direction Strip to see what each one does.",
            search_aliases=["creps directions", "sefa", "ganspace", "pca", "semantic", "edit", "controls"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator to analyse."),
                io.Combo.Input(
                    "method",
                    options=list(DIRECTION_METHODS),
                    default="SeFa",
                    tooltip="SeFa: directions to which its weights respond most, for the chosen styles. PCA "
                    "(GANSpace): directions along which its latents vary most. Named: directions stored in the "
                    "generator with a name, as in the built-in alpenglow.",
                ),
                io.String.Input("layers", default="all", tooltip=f"Styles to analyse and to change: {_LAYERS}."),
                io.Int.Input("count", default=10, min=1, max=512, tooltip="Number of directions, the strongest first."),
                io.Int.Input(
                    "samples",
                    default=4096,
                    min=16,
                    max=1 << 20,
                    optional=True,
                    advanced=True,
                    tooltip="Number of random latents for PCA and for the size of a step.",
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
    """Latents -> moved along a direction."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_EditLatents",
            display_name="Edit CREPS Latents",
            category="CREPS/latents",
            description="Moves latents along a direction. Chain several nodes for several directions.",
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
                    tooltip="Distance: 1 is a standard deviation of the generator's latents, 3 is far.",
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
    """The effect of directions, as a table for the contact sheet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_DirectionStrip",
            display_name="CREPS Direction Strip",
            category="CREPS/latents",
            description="Shows what directions do to a latent: a row per direction, from negative to positive "
            "strengths. Connect it to CREPS Contact Sheet.",
            search_aliases=["creps direction grid", "sefa strip", "explore directions", "traversal"],
            inputs=[
                LatentSocket.Input(
                    "latent", tooltip="The latent to change; each of several latents has rows of its own."
                ),
                DirectionsSocket.Input("directions", tooltip="Directions of the same generator."),
                io.String.Input(
                    "indices",
                    default="0:5",
                    tooltip="Which directions, counted from 0, such as 0, 2, 5-7 (5:8 is the same). : is all.",
                ),
                io.Float.Input(
                    "reach",
                    default=3.0,
                    min=0.1,
                    max=100.0,
                    step=0.1,
                    tooltip="Strengths run from minus this to plus this.",
                ),
                io.Int.Input(
                    "columns", default=7, min=2, max=64, tooltip="Pictures per direction; an odd number includes 0."
                ),
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


class SaveDirections(bridge.FileOutputNode):
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
                DirectionsSocket.Input("directions", tooltip="The directions to save."),
                io.String.Input(
                    "filename_prefix",
                    default="directions",
                    tooltip="Name of the file; a number is added. May start with folders.",
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
                    tooltip="Press R to refresh the list after saving or adding a file.",
                ),
                io.Combo.Input(
                    "if_different",
                    options=list(IF_DIFFERENT),
                    default="refuse",
                    advanced=True,
                    tooltip="If the directions were found in another generator: refuse them, or adapt them if the "
                    "dimensions allow it. In a fine-tuned generator they have nearly the same effect.",
                ),
            ],
            outputs=[DirectionsSocket.Output(display_name="directions", tooltip="The directions of the file.")],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str, model: Model | None = None, if_different: str = "refuse") -> object:
        """Changes when the file is overwritten."""
        return bridge.file_state(bridge.DIRECTIONS_FOLDER, file), if_different

    @classmethod
    def execute(cls, model: Model, file: str, if_different: str) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise(bridge.DIRECTIONS_FOLDER, file)
        return io.NodeOutput(load_directions(path, model.generator, if_different))
