"""Colours by the hour: sRGB of each share of the image (shares sum to 1), and of each light added on top."""

from __future__ import annotations

HOURS = ("night", "violet", "rose", "morning", "day", "golden", "ember")
"""The palettes, in the order in which the latent runs through them."""

SHARES = {
    #         night      violet     rose       morning    day        golden     ember
    "top": ("#0a1430", "#2b2a5e", "#5a6ea8", "#4f8fc9", "#3c7fc4", "#4a6a9e", "#2a2350"),
    "middle": ("#16264d", "#6b4f8a", "#b39bc0", "#9cc4e0", "#86b8e2", "#c9a58c", "#8a3f5e"),
    "horizon": ("#2f4772", "#e0907f", "#f7cbb0", "#f8e3c4", "#d3e6ef", "#fbcf8e", "#f58a4a"),
    "far": ("#22365e", "#5d4a80", "#8f86ae", "#86a8c4", "#7fa5c8", "#a1819a", "#6e3a5c"),
    "near": ("#0f1c38", "#2c2750", "#4a4c74", "#3c5a78", "#36587c", "#4b3f5e", "#2d1a38"),
    "lit": ("#31496f", "#c07a7c", "#e6b0a0", "#d8bd9c", "#a9b3b8", "#eda46a", "#d8623c"),
    "shaded snow": ("#3c5483", "#8678a8", "#a8a6cc", "#a9c4de", "#a8c6e4", "#a9a0c0", "#7d5580"),
    "snow": ("#8fa6cf", "#f2b3a6", "#fde0d2", "#fff3e2", "#ffffff", "#ffd9a6", "#ff9f72"),
    "forest": ("#070d1c", "#17152e", "#27304a", "#1e3444", "#1b3640", "#2a2436", "#190e22"),
    "water": ("#0b1832", "#2c2a55", "#4d5f8c", "#3f6f96", "#2f648f", "#4d5674", "#2b1c40"),
    "bank": ("#03060e", "#0b0a18", "#121826", "#0e1a22", "#0d1c20", "#140f1a", "#0b0610"),
}
LIGHTS = {
    "sun": ("#c8d4ee", "#ffc8a0", "#ffdcb8", "#fff0c8", "#fff6d8", "#fff0b0", "#ffb060"),
    "glow": ("#26365e", "#703838", "#5c3c28", "#4c4024", "#38382c", "#704820", "#803010"),
    "clouds": ("#101a30", "#603040", "#503838", "#383430", "#404040", "#604028", "#702818"),
    "stars": ("#c0c8d8", "#40385c", "#000000", "#000000", "#000000", "#000000", "#101020"),
    "glitter": ("#8090b8", "#d08060", "#c89878", "#c8b080", "#b0b090", "#e0a850", "#e07030"),
}


def channels(name: str) -> list[list[float]]:
    """Red, green and blue of a share or light, 0..1, each in all hours."""
    colours = (SHARES | LIGHTS)[name]
    return [[int(colour[i : i + 2], 16) / 255 for colour in colours] for i in (1, 3, 5)]
