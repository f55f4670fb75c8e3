"""Latents that move: a latent per frame."""

from __future__ import annotations

from comfy_api.latest import io

from ..creps_core.latents import CURVES, INTERPOLATION_SPACES, LATENT_EASINGS, MAX_SEED, interpolate, random_walk
from . import bridge
from .latents import sampling_inputs, sampling_options
from .sockets import Latents, LatentSocket, Model, ModelSocket

_MOST_FRAMES = 16384


class InterpolateLatents(io.ComfyNode):
    """Key latents -> a latent per frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_InterpolateLatents",
            display_name="Interpolate CREPS Latents",
            category="CREPS/latents",
            description="Moves from latent to latent: a batch with a latent per frame. Render it and give the pictures "
            "to Create Video.",
            search_aliases=["creps interpolation", "morph", "tween", "slerp", "animation", "video", "loop", "spline"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that the latents belong to."),
                LatentSocket.Input("latent", tooltip="The keys, at least two: the path passes them in this order."),
                io.Int.Input(
                    "frames",
                    default=48,
                    min=1,
                    max=_MOST_FRAMES,
                    tooltip="Frames from one key to the next. An open path ends with one more, the last key.",
                ),
                io.Combo.Input(
                    "space",
                    options=list(INTERPOLATION_SPACES),
                    default="ws",
                    tooltip="ws goes straight from picture to picture. z goes by pictures that are as likely as "
                    "sampled ones, and needs latents as they were sampled.",
                ),
                io.Combo.Input(
                    "curve",
                    options=list(CURVES),
                    default="cubic",
                    tooltip="linear: straight, with a corner at every key. spherical: around the average picture, "
                    "which so never comes too near. cubic: passes the keys without a corner.",
                ),
                io.Combo.Input(
                    "easing",
                    options=list(LATENT_EASINGS),
                    default="linear",
                    tooltip="Speed between two keys: linear is even, smooth is slow at every key, ease-in slow at the "
                    "beginning, ease-out at the end. even: every step changes the picture by as much, over the whole "
                    "path.",
                ),
                io.Boolean.Input("closed", default=True, tooltip="Return to the first key: a loop without a seam."),
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
            description="A random way through the generator that ends where it began: a batch with a latent per frame, "
            "for a video that loops. Every frame is as likely as a sampled picture.",
            search_aliases=["creps walk", "noise loop", "wander", "animation", "video", "drift"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator to walk through."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=MAX_SEED,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Which way, and which picture it stays near when reach is small.",
                ),
                io.Int.Input("frames", default=120, min=1, max=_MOST_FRAMES, tooltip="Length of the loop."),
                io.Float.Input(
                    "smoothness",
                    default=30.0,
                    min=0.1,
                    max=16384.0,
                    step=1.0,
                    tooltip="After about so many frames a picture has become another one: the larger, the slower.",
                ),
                io.Float.Input(
                    "reach",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="1 walks freely, smaller values stay near the picture of the seed, 0 stands still.",
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
