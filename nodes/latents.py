"""Sampling latents."""

from __future__ import annotations

from comfy_api.latest import io

from ..creps_core import sample
from ..creps_core.latents import MAX_SEED
from . import bridge
from .sockets import Latents, LatentSocket, Model, ModelSocket


class SampleLatents(io.ComfyNode):
    """Seeds -> latents."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_SampleLatents",
            display_name="Sample CREPS Latents",
            category="CREPS",
            description="Turns seeds into latents: what a picture shows, apart from its size. A seed below 2^32 "
            "means the same picture as in the authors' tools.",
            search_aliases=["creps seed", "gan seed", "latent", "truncation", "z", "w"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator to sample for."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Which picture. A batch takes this seed and the following ones.",
                ),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="How many latents: seed, seed + 1..."),
                io.Float.Input(
                    "truncation_psi",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Variety against quality: 1 is the full variety, 0 the average picture, about 0.7 a "
                    "good compromise, above 1 exaggerates, below 0 the opposite of a picture.",
                ),
                io.Int.Input(
                    "truncation_cutoff",
                    default=-1,
                    min=-1,
                    max=64,
                    optional=True,
                    advanced=True,
                    tooltip="Truncate only the first so many style vectors (the coarse ones); -1 for all.",
                ),
                io.Int.Input(
                    "label",
                    default=-1,
                    min=-1,
                    max=65535,
                    optional=True,
                    advanced=True,
                    tooltip="Class, for a generator with classes; -1 picks one by the seed. Others ignore it.",
                ),
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
    ) -> io.NodeOutput:
        seeds = [(seed + i) % (MAX_SEED + 1) for i in range(batch_size)]
        ws = sample(
            bridge.on_device(model),
            seeds,
            label=None if label < 0 else label,
            truncation_psi=truncation_psi,
            truncation_cutoff=None if truncation_cutoff < 0 else truncation_cutoff,
        )
        return io.NodeOutput(Latents(ws.cpu(), seeds))
