"""Sampling latents, and truncating them."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..creps_core.latents import MAX_SEED, parse_seeds, sample_latents, truncate_latents
from . import bridge
from .sockets import Latents, LatentSocket, Model, ModelSocket


def sampling_inputs() -> list[io.Input]:
    """Truncation and label: the last inputs of every node that samples."""
    return [
        io.Float.Input(
            "truncation_psi",
            default=1.0,
            min=-2.0,
            max=2.0,
            step=0.05,
            tooltip="Trades variety for quality: 1 is the full variety, 0 the average picture, about 0.7 a good "
            "compromise; above 1 exaggerates, below 0 shows the opposite of a picture.",
        ),
        io.Int.Input(
            "truncation_cutoff",
            default=-1,
            min=-1,
            max=64,
            optional=True,
            advanced=True,
            tooltip="Truncate only this number of style vectors, from the first (the coarse ones); -1 for all.",
        ),
        io.Int.Input(
            "label",
            default=-1,
            min=-1,
            max=65535,
            optional=True,
            advanced=True,
            tooltip="Class, for a generator with classes; -1 draws one by the seed, with its frequency in training. "
            "Other generators ignore it.",
        ),
        io.String.Input(
            "label_name",
            default="",
            optional=True,
            advanced=True,
            tooltip="Replaces label: the name of a class, or the numbers of a label such as 0.5, 25.",
        ),
    ]


def sampling_options(truncation_psi: float, truncation_cutoff: int, label: int, label_name: str) -> dict[str, Any]:
    """The values of `sampling_inputs` as arguments of the core: None instead of -1."""
    return {
        "label": label_name.strip() or (None if label < 0 else label),
        "truncation_psi": truncation_psi,
        "truncation_cutoff": None if truncation_cutoff < 0 else truncation_cutoff,
    }


class SampleLatents(io.ComfyNode):
    """Seeds -> latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_SampleLatents",
            display_name="Sample CREPS Latents",
            category="CREPS",
            description="Turns seeds into latents, which determine everything about a picture except its size. A seed "
            "below 2^32 gives the same picture as in the authors' tools.",
            search_aliases=["seed", "random picture", "random image", "gan seed", "latent", "truncation", "z", "w"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator to sample for."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Selects the picture. A batch takes this seed and the following ones.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="Number of latents: seed, seed + 1..."),
                *sampling_inputs(),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="The latents, one per picture.")],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        seed: int,
        batch_size: int,
        truncation_psi: float,
        truncation_cutoff: int = -1,
        label: int = -1,
        label_name: str = "",
    ) -> io.NodeOutput:
        seeds = [(seed + i) % (MAX_SEED + 1) for i in range(batch_size)]
        options = sampling_options(truncation_psi, truncation_cutoff, label, label_name)
        return io.NodeOutput(sample_latents(bridge.on_device(model), seeds, **options))


class SampleSeeds(io.ComfyNode):
    """A list of seeds -> latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_SampleSeeds",
            display_name="Sample CREPS Seeds",
            category="CREPS/latents",
            description="Turns a list of seeds into a batch of latents: pictures chosen from a contact sheet, or the "
            "keys of an interpolation.",
            search_aliases=["creps seeds", "seed list", "seed range", "latent batch", "gan seeds"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator to sample for."),
                io.String.Input(
                    "seeds",
                    default="0-11",
                    multiline=True,
                    tooltip="Seeds and ranges of seeds, such as 1, 5, 10-13; or 10:14, which excludes its end. "
                    "The order is kept, and seeds may repeat. At most 4096.",
                ),
                *sampling_inputs(),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="One latent per seed, in this order.")],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        seeds: str,
        truncation_psi: float,
        truncation_cutoff: int = -1,
        label: int = -1,
        label_name: str = "",
    ) -> io.NodeOutput:
        options = sampling_options(truncation_psi, truncation_cutoff, label, label_name)
        return io.NodeOutput(sample_latents(bridge.on_device(model), parse_seeds(seeds), **options))


class TruncateLatents(io.ComfyNode):
    """Latents -> closer to the average, or to another latent."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_TruncateLatents",
            display_name="Truncate CREPS Latents",
            category="CREPS/latents",
            description="Moves latents towards the average picture of the generator, for quality, or towards a chosen "
            "latent, for likeness. Works on any latents, after sampling.",
            search_aliases=["creps truncation", "psi", "truncation trick", "towards", "likeness"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that the latents belong to."),
                LatentSocket.Input("latent", tooltip="The latents to move."),
                io.Float.Input(
                    "psi",
                    default=0.7,
                    min=-4.0,
                    max=4.0,
                    step=0.05,
                    tooltip="1 leaves the latents unchanged, 0 moves them all the way, above 1 moves them away.",
                ),
                io.Int.Input(
                    "cutoff",
                    default=-1,
                    min=-1,
                    max=64,
                    optional=True,
                    advanced=True,
                    tooltip="Move only this number of style vectors, from the first (the coarse ones); -1 for all.",
                ),
                LatentSocket.Input(
                    "towards",
                    optional=True,
                    tooltip="Move towards this latent instead of the average: one for all, or one for each.",
                ),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="The moved latents.")],
        )

    @classmethod
    def execute(
        cls, model: Model, latent: Latents, psi: float, cutoff: int = -1, towards: Latents | None = None
    ) -> io.NodeOutput:
        limit = None if cutoff < 0 else cutoff
        return io.NodeOutput(truncate_latents(model.generator, latent, psi, limit, towards))
