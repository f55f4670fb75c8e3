"""The camera: views, paths, films."""

from __future__ import annotations

from comfy_api.latest import io
from einops import rearrange
from torch import Tensor

from ..creps_core.rendering import (
    EASINGS,
    QUALITIES,
    TIMINGS,
    WARPS,
    View,
    add_warp,
    camera_path,
    render_path,
    render_view,
    views_estimate,
)
from . import bridge, inputs
from .render import MAX_SIDE, SMALLEST_TILE
from .sockets import Latents, LatentSocket, Model, ModelSocket, PathSocket, ViewSocket

_MAX_FRAMES = 10000
_MAX_VIEWS = 50


class MakeView(io.ComfyNode):
    """Centre, zoom, rotation, mirror."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_View",
            display_name="CREPS View",
            category="CREPS/camera",
            description="Where the camera looks: what the picture shows in the middle, how close, and how turned.",
            search_aliases=["pan", "crop", "zoom", "camera", "rotate", "mirror", "window"],
            inputs=[
                io.Float.Input(
                    "zoom",
                    default=1.0,
                    min=0.001,
                    max=100000.0,
                    step=0.1,
                    round=False,
                    tooltip="1 shows the frame that the generator was trained on, 2 half of each side, 0.5 twice as "
                    "much: beyond the frame the picture continues.",
                ),
                io.Float.Input(
                    "center_x",
                    default=0.5,
                    min=-1000.0,
                    max=1000.0,
                    step=0.01,
                    round=False,
                    tooltip="What is in the middle of the picture: 0 the left edge of the frame, 1 the right.",
                ),
                io.Float.Input(
                    "center_y",
                    default=0.5,
                    min=-1000.0,
                    max=1000.0,
                    step=0.01,
                    round=False,
                    tooltip="What is in the middle of the picture: 0 the top edge of the frame, 1 the bottom.",
                ),
                io.Float.Input(
                    "rotation",
                    default=0.0,
                    min=-36000.0,
                    max=36000.0,
                    step=1.0,
                    round=False,
                    tooltip="Of the picture, in degrees clockwise. Multiples of 90 are as fast as none; other angles "
                    "take about twice as long.",
                ),
                io.Boolean.Input("mirror", default=False, tooltip="Swap left and right of the picture."),
            ],
            outputs=[ViewSocket.Output(display_name="view", tooltip="For Render CREPS, or a camera path.")],
        )

    @classmethod
    def execute(cls, zoom: float, center_x: float, center_y: float, rotation: float, mirror: bool) -> io.NodeOutput:
        return io.NodeOutput(View(center_y=center_y, center_x=center_x, zoom=zoom, rotation=rotation, mirror=mirror))


class WarpView(io.ComfyNode):
    """A lens in front of the camera."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_WarpView",
            display_name="Warp CREPS View",
            category="CREPS/camera",
            description="Puts a lens in front of the camera. Every pixel is computed where the lens sends it: nothing "
            "is resampled.",
            search_aliases=["creps lens", "distort", "swirl", "bulge", "perspective", "kaleidoscope", "tunnel"],
            inputs=[
                io.Combo.Input(
                    "warp",
                    options=list(WARPS),
                    tooltip="swirl, bulge, ripple: about the middle. tilt, turn: perspective, the upper or the right "
                    "part goes away. tunnel: a kaleidoscope without end.",
                ),
                io.Float.Input(
                    "amount",
                    default=0.5,
                    min=-1000.0,
                    max=1000.0,
                    step=0.05,
                    round=False,
                    tooltip="0 is none, 1 is strong, negative the other way (bulge: pinch). In a tunnel it is how far "
                    "one has flown: from 0 to 1 in a camera path is a loop.",
                ),
                ViewSocket.Input("view", optional=True, tooltip="The view to warp; without one the whole frame."),
            ],
            outputs=[ViewSocket.Output(display_name="view", tooltip="The view through the lens.")],
        )

    @classmethod
    def execute(cls, warp: str, amount: float, view: View | None = None) -> io.NodeOutput:
        return io.NodeOutput(add_warp(view or View(), warp, amount))


class CameraPath(io.ComfyNode):
    """Key views -> a view per frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_CameraPath",
            display_name="CREPS Camera Path",
            category="CREPS/camera",
            description="Moves the camera through key views: a view per frame. A zoom runs at a constant visual speed, "
            "straight towards its goal.",
            search_aliases=["zoom video", "key frames", "animation", "ken burns", "video"],
            inputs=[
                io.Autogrow.Input(
                    "views",
                    template=io.Autogrow.TemplatePrefix(
                        ViewSocket.Input("view", tooltip="The camera passes through this view."),
                        prefix="view_",
                        min=2,
                        max=_MAX_VIEWS,
                    ),
                    tooltip="Key views, in order.",
                ),
                io.Int.Input(
                    "frames", default=48, min=2, max=_MAX_FRAMES, tooltip="How many views to make, one per frame."
                ),
                io.Combo.Input(
                    "easing",
                    options=list(EASINGS),
                    default="ease in and out",
                    tooltip="Whether the camera starts and stops gently; linear for loops.",
                ),
                io.Combo.Input(
                    "timing",
                    options=list(TIMINGS),
                    default="constant speed",
                    tooltip="constant speed gives longer ways more frames; equal times gives every way the same.",
                ),
                io.Boolean.Input(
                    "closed", default=False, tooltip="Lead back to the first view, so that the video loops."
                ),
            ],
            outputs=[PathSocket.Output(display_name="path", tooltip="A view per frame, for Render CREPS Path.")],
        )

    @classmethod
    def execute(cls, views: io.Autogrow.Type, frames: int, easing: str, timing: str, closed: bool) -> io.NodeOutput:
        keys = [view for view in views.values() if view is not None]
        return io.NodeOutput(camera_path(keys, frames, easing=easing, timing=timing, closed=closed))


class RenderPath(io.ComfyNode):
    """Latents and a camera path -> frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_RenderPath",
            display_name="Render CREPS Path",
            category="CREPS/camera",
            description="Renders one frame per view of a camera path, each natively at its own zoom: the last frame of "
            "a zoom is as sharp as the first. The frames go to Create Video.",
            search_aliases=["creps video", "animation", "zoom video", "film", "frames"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that the latents were sampled for."),
                LatentSocket.Input(
                    "latent", tooltip="One latent for all frames, or as many as the path has frames: a moving picture."
                ),
                PathSocket.Input("path", tooltip="A view per frame."),
                io.Int.Input("width", default=512, min=1, max=MAX_SIDE, tooltip="Width of a frame in pixels."),
                io.Int.Input("height", default=512, min=1, max=MAX_SIDE, tooltip="Height of a frame in pixels."),
                inputs.fit(
                    tooltip="When frames are not square: crop shows a centred part of each view, extend continues the "
                    "picture beyond it, stretch distorts.",
                ),
                inputs.supersample(
                    default=1,
                    tooltip="Samples per pixel and side, against flicker where the camera is far away. 2 takes four "
                    "times as long.",
                ),
                io.Combo.Input(
                    "quality",
                    options=list(QUALITIES),
                    default="good",
                    optional=True,
                    advanced=True,
                    tooltip="Of turned and warped views: the largest error, in levels of an 8-bit picture: draft 2, "
                    "good 0.25, best 0.06; exact is very slow. Upright views are always exact.",
                ),
                inputs.precision(),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The frames.")],
        )

    @classmethod
    def execute(
        cls,
        model: Model,
        latent: Latents,
        path: list[View],
        width: int,
        height: int,
        fit: str,
        supersample: int,
        quality: str = "good",
        precision: str = "auto",
    ) -> io.NodeOutput:
        config = model.generator.config
        image = bridge.new_image(len(path), height, width, config.img_channels)
        memory = views_estimate(config, path, height, width, supersample)

        def draw(height: int, width: int) -> Tensor:
            return render_view(model.generator, latent.ws[:1], path[0], height=height, width=width, fit=fit)

        bridge.back_off(
            lambda tile: render_path(
                bridge.on_device(model, memory),
                latent.ws,
                path,
                height=height,
                width=width,
                fit=fit,
                supersample=supersample,
                quality=quality,
                precision=precision,
                tile=tile,
                progress=bridge.progress_of(image, draw),
                out=rearrange(image, "n h w c -> n c h w"),
            ),
            smallest=SMALLEST_TILE,
            advice="Lower supersample or the width, or close other programs that use it",
        )
        return io.NodeOutput(bridge.to_image(image))
