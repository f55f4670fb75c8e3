"""The camera: views, paths, films."""

from __future__ import annotations

from functools import partial

from comfy_api.latest import io

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
from . import inputs
from .render import MAX_IMAGE_SIDE, render_image_batch
from .sockets import Latents, LatentSocket, Model, ModelSocket, PathSocket, ViewSocket

_MAX_FRAMES = 10000
_MAX_VIEWS = 50


class MakeView(io.ComfyNode):
    """A view: centre, zoom, rotation, mirror."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="CREPS_View",
            display_name="CREPS View",
            category="CREPS/camera",
            description="The camera's view: its centre, zoom and rotation.",
            search_aliases=["pan", "crop", "zoom", "camera", "rotate", "mirror", "window"],
            inputs=[
                io.Float.Input(
                    "zoom",
                    default=1.0,
                    min=0.001,
                    max=100000.0,
                    step=0.1,
                    round=False,
                    tooltip="1 shows the frame that the generator was trained on, 2 half of its width and height, 0.5 "
                    "twice of both: beyond the frame the picture continues.",
                ),
                io.Float.Input(
                    "center_x",
                    default=0.5,
                    min=-1000.0,
                    max=1000.0,
                    step=0.01,
                    round=False,
                    tooltip="Horizontal centre of the view: 0 is the left edge of the frame, 1 the right.",
                ),
                io.Float.Input(
                    "center_y",
                    default=0.5,
                    min=-1000.0,
                    max=1000.0,
                    step=0.01,
                    round=False,
                    tooltip="Vertical centre of the view: 0 is the top edge of the frame, 1 the bottom.",
                ),
                io.Float.Input(
                    "rotation",
                    default=0.0,
                    min=-36000.0,
                    max=36000.0,
                    step=1.0,
                    round=False,
                    tooltip="Of the picture, in degrees clockwise. Multiples of 90 cost nothing; other angles take "
                    "about twice as long.",
                ),
                io.Boolean.Input("mirror", default=False, tooltip="Mirror the picture horizontally."),
            ],
            outputs=[ViewSocket.Output(display_name="view", tooltip="For Render CREPS, or a camera path.")],
        )

    @classmethod
    def execute(cls, zoom: float, center_x: float, center_y: float, rotation: float, mirror: bool) -> io.NodeOutput:
        return io.NodeOutput(View(center_y=center_y, center_x=center_x, zoom=zoom, rotation=rotation, mirror=mirror))


class WarpView(io.ComfyNode):
    """A view through a lens."""

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
                    tooltip="swirl, bulge, ripple: around the centre. tilt, turn: perspective, in which the upper or "
                    "the right part recedes. tunnel: an endless kaleidoscope.",
                ),
                io.Float.Input(
                    "amount",
                    default=0.5,
                    min=-1000.0,
                    max=1000.0,
                    step=0.05,
                    round=False,
                    tooltip="0 is none, 1 is strong, negative values bend the other way (bulge: pinch). In a tunnel "
                    "it is the distance flown: a camera path from 0 to 1 is a loop.",
                ),
                ViewSocket.Input("view", optional=True, tooltip="The view to warp; by default the whole frame."),
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
            description="Moves the camera through key views, one view per frame. A zoom runs at a constant visual "
            "speed, straight towards its target.",
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
                io.Int.Input("frames", default=48, min=2, max=_MAX_FRAMES, tooltip="Number of views, one per frame."),
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
                    tooltip="constant speed gives more frames to longer segments; equal times gives each the same "
                    "number.",
                ),
                io.Boolean.Input("closed", default=False, tooltip="Return to the first view, so that the video loops."),
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
            "a zoom is as sharp as the first. Connect the frames to Create Video.",
            search_aliases=["creps video", "animation", "zoom video", "film", "frames"],
            inputs=[
                ModelSocket.Input("model", tooltip="The generator that the latents were sampled for."),
                LatentSocket.Input(
                    "latent", tooltip="One latent for all frames, or one per frame of the path for a changing picture."
                ),
                PathSocket.Input("path", tooltip="A view per frame."),
                io.Int.Input(
                    "width",
                    default=512,
                    min=2,
                    max=MAX_IMAGE_SIDE,
                    step=2,
                    tooltip="Width of a frame in pixels; even, as videos need it.",
                ),
                io.Int.Input(
                    "height",
                    default=512,
                    min=2,
                    max=MAX_IMAGE_SIDE,
                    step=2,
                    tooltip="Height of a frame in pixels; even, as videos need it.",
                ),
                inputs.fit(
                    tooltip="When frames are not square: crop shows a centred part of each view, extend continues the "
                    "picture beyond it, stretch distorts.",
                ),
                inputs.supersample(
                    default=1,
                    tooltip="Samples per pixel and side, against flicker when the camera is far away. 2 takes four "
                    "times as long.",
                ),
                io.Combo.Input(
                    "quality",
                    options=list(QUALITIES),
                    default="good",
                    optional=True,
                    advanced=True,
                    tooltip="Largest error of rotated and warped views, in levels of an 8-bit picture: draft 2, good "
                    "0.25, best 0.06; exact is very slow. Upright views are always exact.",
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
        options = {"height": height, "width": width, "supersample": supersample}
        image = render_image_batch(
            model,
            (len(path), height, width),
            views_estimate(model.generator.config, path, **options),
            partial(render_path, ws=latent.ws, views=path, fit=fit, quality=quality, precision=precision, **options),
            lambda h, w: render_view(model.generator, latent.ws[:1], path[0], height=h, width=w, fit=fit),
        )
        return io.NodeOutput(image)
