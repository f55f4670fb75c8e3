"""Pictures on disk."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from PIL import Image, PngImagePlugin

from .files import replace_file


def save_png(path: str | os.PathLike[str], pixels: np.ndarray, text: Mapping[str, str] | None = None) -> None:
    """Write a picture as PNG, atomically.

    Args:
        path: of the new file.
        pixels: [height, width, C] uint8, C of 1 (grey), 3 or 4.
        text: kept in the file as text chunks.
    """
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        info.add_text(key, value)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    replace_file(path, lambda partial: image.save(partial, format="PNG", pnginfo=info))
