"""Inputs shared by several nodes."""

from __future__ import annotations

from comfy_api.latest import io

from ..creps_core.rendering import FITS, MAX_SUPERSAMPLE, RENDER_PRECISIONS

FIT_TOOLTIP = (
    "When the picture is not square: crop shows a centred part of the frame, extend continues the picture beyond the "
    "frame, stretch distorts."
)
SUPERSAMPLE_TOOLTIP = (
    "Samples per pixel and side, against flicker and jagged edges when a picture is smaller than its detail. 2 takes "
    "four times as long."
)


def fit(tooltip: str = FIT_TOOLTIP) -> io.Combo.Input:
    """The input for images that are not square."""
    return io.Combo.Input("fit", options=list(FITS), default="crop", tooltip=tooltip)


def supersample(default: int = 1, tooltip: str = SUPERSAMPLE_TOOLTIP) -> io.Int.Input:
    """Samples per pixel and side."""
    return io.Int.Input("supersample", default=default, min=1, max=MAX_SUPERSAMPLE, advanced=True, tooltip=tooltip)


def precision() -> io.Combo.Input:
    """Precision of the matrix products."""
    return io.Combo.Input(
        "precision",
        options=list(RENDER_PRECISIONS),
        default="auto",
        optional=True,
        advanced=True,
        tooltip="Of the matrix products. auto is float32, and on an NVIDIA GPU the fastest one whose pictures "
        "of this generator look the same (the log says which).",
    )


def window() -> list[io.Float.Input]:
    """The edges of the part of the frame to show: top, left, bottom, right."""

    def edge(name: str, default: float) -> io.Float.Input:
        return io.Float.Input(
            name,
            default=default,
            min=-1000.0,
            max=1000.0,
            step=0.01,
            round=False,
            optional=True,
            advanced=True,
            tooltip=f"{name.capitalize()} edge of the part of the frame to show: 0 to 1 is the frame that the "
            "generator was trained on, beyond it the picture continues.",
        )

    return [edge("top", 0.0), edge("left", 0.0), edge("bottom", 1.0), edge("right", 1.0)]
