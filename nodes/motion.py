"""Latents that change over time: one per frame."""

from __future__ import annotations

from comfy_api.latest import io

from ..creps_core.latents import CURVES, INTERPOLATION_SPACES, LATENT_EASINGS, MAX_SEED, interpolate, random_walk
from . import bridge
from .latents import sampling_inputs, sampling_options
from .sockets import Latents, LatentSocket, Model, ModelSocket

_MAX_LATENTS = 16384


class InterpolateLatents(io.ComfyNode):
    """Key latents -> a latent per frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_InterpolateLatents",
            display_name="Interpolate CREPS Latents",
            category="CREPS/latents",
            description="Interpolates between latents: a batch with one latent per frame. Render it and connect the "
            "pictures to Create Video.",
            search_aliases=["creps interpolation", "morph", "tween", "slerp", "animation", "video", "loop", "spline"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that the latents belong to."),
                LatentSocket.Input(
                    "latent", tooltip="The keys, at least two, in the order in which the path passes them."
                ),
                io.Int.Input(
                    "frames",
                    default=48,
                    min=1,
                    max=_MAX_LATENTS,
                    tooltip="Frames from one key to the next. An open path ends with one more, the last key.",
                ),
                io.Combo.Input(
                    "space",
                    options=list(INTERPOLATION_SPACES),
                    default="ws",
                    tooltip="ws goes straight from picture to picture. z passes pictures that are as likely as sampled "
                    "ones, and needs latents that were not changed after sampling.",
                ),
                io.Combo.Input(
                    "curve",
                    options=list(CURVES),
                    default="cubic",
                    tooltip="linear: straight, with a corner at every key. spherical: around the average picture, at a "
                    "distance from it. cubic: smooth at the keys.",
                ),
                io.Combo.Input(
                    "easing",
                    options=list(LATENT_EASINGS),
                    default="linear",
                    tooltip="Speed between two keys: linear is constant, smooth is slow at every key, ease-in slow at "
                    "the start, ease-out slow at the end. even: every step of the whole path changes the picture by "
                    "the same amount.",
                ),
                io.Boolean.Input("closed", default=True, tooltip="Return to the first key: a seamless loop."),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="A latent per frame.")],
        )

    @classmethod
    def execute(
        cls, model: Model, latent: Latents, frames: int, space: str, curve: str, easing: str, closed: bool
    ) -> io.NodeOutput:
        options = {"space": space, "curve": curve, "easing": easing, "closed": closed}
        return io.NodeOutput(interpolate(bridge.on_device(model), latent, frames=frames, **options))


class RandomWalk(io.ComfyNode):
    """A seed -> a latent per frame, in a loop."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_RandomWalk",
            display_name="CREPS Random Walk",
            category="CREPS/latents",
            description="A random walk through the latent space in a loop: a batch with one latent per frame, for a "
            "video that loops. Every frame is as likely as a sampled picture.",
            search_aliases=["creps walk", "noise loop", "wander", "animation", "video", "drift"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator to walk through."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Selects the walk, and the picture that it stays near if reach is small.",
                ),
                io.Int.Input("frames", default=120, min=1, max=_MAX_LATENTS, tooltip="Length of the loop."),
                io.Float.Input(
                    "smoothness",
                    default=30.0,
                    min=0.1,
                    max=16384.0,
                    step=1.0,
                    tooltip="Number of frames after which the picture has become a different one: the larger, the "
                    "slower.",
                ),
                io.Float.Input(
                    "reach",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="1 walks freely, smaller values stay near the picture of the seed, 0 does not move.",
                ),
                *sampling_inputs(),
            ],
            outputs=[LatentSocket.Output(display_name="latent", tooltip="A latent per frame.")],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        seed: int,
        frames: int,
        smoothness: float,
        reach: float,
        truncation_psi: float,
        truncation_cutoff: int = -1,
        label: int = -1,
        label_name: str = "",
    ) -> io.NodeOutput:
        options = sampling_options(truncation_psi, truncation_cutoff, label, label_name)
        walk = random_walk(bridge.on_device(model), seed, frames=frames, smoothness=smoothness, reach=reach, **options)
        return io.NodeOutput(walk)
